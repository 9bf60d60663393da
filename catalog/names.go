package catalog

import "strings"

// SplitNames splits a comma-separated list of identifiers as PostgreSQL does
// for search_path: bare names are folded to lower case, quoted ones kept. An
// empty list is fine; false means that PostgreSQL would refuse the value.
func SplitNames(value string) (names []string, ok bool) { return splitNames(value, ',') }

// QualifiedName splits a name as PostgreSQL does for regclass: "schema.name", or a name
// alone. ok is false for what it would refuse, and for numbers, which are OIDs.
func QualifiedName(value string) (schema, name string, ok bool) {
	names, ok := splitNames(value, '.')
	switch {
	case !ok || strings.Trim(value, "0123456789") == "" || trimSpace(value) == "-":
	case len(names) == 1:
		return "", names[0], true
	case len(names) == 2:
		return names[0], names[1], true
	}
	return "", "", false
}

func splitNames(value string, separator byte) (names []string, ok bool) {
	rest := trimSpace(value)
	if rest == "" {
		return nil, true
	}
	for {
		var name string
		if strings.HasPrefix(rest, `"`) {
			name, rest, ok = quotedName(rest[1:])
			if !ok {
				return nil, false
			}
		} else {
			end := strings.IndexAny(rest, string(separator)+" \t\n\r\f\v")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, false
			}
			name, rest = lower(rest[:end]), rest[end:]
		}
		names = append(names, truncate(name))
		if rest = trimSpace(rest); rest == "" {
			return names, true
		}
		if rest[0] != separator {
			return nil, false
		}
		rest = trimSpace(rest[1:])
	}
}

// quotedName reads up to the closing quote; two quotes stand for one.
func quotedName(s string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			if i+1 >= len(s) || s[i+1] != '"' {
				return b.String(), s[i+1:], true
			}
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// truncate cuts a name to what PostgreSQL keeps of it.
func truncate(name string) string {
	const maxBytes = 63 // NAMEDATALEN - 1
	if len(name) <= maxBytes {
		return name
	}
	end := maxBytes
	for end > 0 && name[end]&0xc0 == 0x80 {
		end--
	}
	return name[:end]
}

// lower folds ASCII letters.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\f\v") }
