package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// readHBA reads an auth_hba_file as rules of ours; said is what could not be carried over.
func readHBA(path string) (rules []*yamlMap, said []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		text, _, _ := strings.Cut(strings.TrimSpace(line), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		rule, why := hbaRule(fields)
		if why != "" {
			said = append(said, fmt.Sprintf("%s, line %d: %s", path, n, why))
			// What comes behind must not let in whom this line would have turned away.
			rule = &yamlMap{}
			rule.set("method", "reject")
		}
		rules = append(rules, rule)
		if why != "" {
			said = append(said, fmt.Sprintf("%s: the lines behind line %d are left out, and nobody matches who comes to it: write auth.rules yourself", path, n))
			break
		}
	}
	return rules, said, nil
}

// hbaMethods are the methods that both have.
var hbaMethods = map[string]string{"trust": "trust", "reject": "reject", "md5": "md5", "password": "password", "scram-sha-256": "scram-sha-256", "cert": "cert", "peer": ""}

// hbaRule is one line; why says what of it cannot be carried over.
func hbaRule(fields []string) (rule *yamlMap, why string) {
	rule = &yamlMap{}
	if len(fields) < 4 {
		return nil, "it has too few fields"
	}
	rest := fields[3:]
	switch fields[0] {
	case "local":
		rule.set("transport", "unix")
	case "host":
		rule.set("transport", "tcp")
	case "hostssl":
		rule.set("transport", "tcp")
		rule.set("tls", "require")
	case "hostnossl":
		rule.set("transport", "tcp")
		rule.set("tls", "none")
	default:
		return nil, fmt.Sprintf("%q is no kind of connection", fields[0])
	}
	for i, key := range []string{"databases", "users"} {
		names, why := hbaNames(fields[i+1])
		if why != "" {
			return nil, why
		}
		if names != nil {
			rule.set(key, names)
		}
	}
	if fields[0] != "local" {
		address, used, why := hbaAddress(rest)
		if why != "" {
			return nil, why
		}
		if address != "" {
			rule.set("addresses", address)
		}
		rest = rest[used:]
	}
	method := hbaMethods[rest[0]]
	switch {
	case method == "":
		return nil, fmt.Sprintf("the method %q is not known here", rest[0])
	case len(rest) > 1:
		return nil, "options of a method (map, and the like) are not known here"
	}
	rule.set("method", method)
	return rule, ""
}

// hbaNames reads a list of names; nil is all.
func hbaNames(field string) (names []string, why string) {
	for name := range strings.SplitSeq(field, ",") {
		bare := strings.Trim(name, `"`)
		switch {
		case bare == "all" && name != "all":
			return nil, `who is called "all" cannot be told from everybody here`
		case name == "all":
			return nil, ""
		case name != bare:
			names = append(names, bare)
		case name == "sameuser" || name == "samerole" || name == "replication" || strings.HasPrefix(name, "+") || strings.HasPrefix(name, "@") || strings.HasPrefix(name, "/"):
			return nil, fmt.Sprintf("%q is not known here", name)
		default:
			names = append(names, name)
		}
	}
	return names, ""
}

// hbaAddress reads the address, with its mask if that is a field of its own; used is how many fields it takes. "" is all.
func hbaAddress(fields []string) (address string, used int, why string) {
	if len(fields) < 2 {
		return "", 0, "it has too few fields"
	}
	if fields[0] == "all" {
		return "", 1, ""
	}
	if _, err := netip.ParsePrefix(fields[0]); err == nil {
		return fields[0], 1, ""
	}
	ip, err := netip.ParseAddr(fields[0])
	if err != nil {
		return "", 0, fmt.Sprintf("the address %q is not known here", fields[0])
	}
	mask, err := netip.ParseAddr(fields[1])
	if err != nil || len(fields) < 3 {
		return "", 0, fmt.Sprintf("the address %q has no mask", fields[0])
	}
	bits, ended := 0, false
	for _, b := range mask.AsSlice() {
		for i := 7; i >= 0; i-- {
			one := b&(1<<i) != 0
			if one && ended {
				return "", 0, fmt.Sprintf("the mask %q has gaps", fields[1])
			}
			ended = ended || !one
			if one {
				bits++
			}
		}
	}
	return netip.PrefixFrom(ip, bits).String(), 2, ""
}
