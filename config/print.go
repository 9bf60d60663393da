package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// String returns the configuration as YAML with every default filled in and
// every secret as "***". With all secrets in files it reads back as itself.
func (c *Config) String() string {
	var b strings.Builder
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(sectionNode(reflect.ValueOf(c).Elem())); err != nil {
		return "config: cannot be printed: " + err.Error()
	}
	return b.String()
}

// sectionNode returns the mapping of a section; empty strings, whose keys the
// file would leave out, are left out.
func sectionNode(v reflect.Value) *yaml.Node {
	if f := itself(v.Type()); f != nil {
		return fieldNode(v.Field(f.index), f)
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		fv := v.Field(f.index)
		if f.typ == secretType && fv.Interface().(Secret).Empty() || fromFile(v, f.key) {
			continue
		}
		if fv.Kind() == reflect.Pointer && fv.IsNil() || fv.Kind() == reflect.String && fv.Len() == 0 && f.def == "" {
			continue
		}
		n.Content = append(n.Content, stringNode(f.key), fieldNode(fv, &f))
	}
	return n
}

// fromFile reports whether the secret of the key was read from the file that
// the section names beside it.
func fromFile(v reflect.Value, key string) bool {
	for _, f := range fieldsOf(v.Type()) {
		if f.key == key+"_file" {
			return v.Field(f.index).Len() > 0
		}
	}
	return false
}

func fieldNode(v reflect.Value, f *field) *yaml.Node {
	switch f.nature() {
	case section:
		return sectionNode(reflect.Indirect(v))
	case elements:
		if f.isMap {
			n := &yaml.Node{Kind: yaml.MappingNode}
			for i := range v.Len() {
				n.Content = append(n.Content, stringNode(nameOf(v.Index(i))), sectionNode(v.Index(i)))
			}
			return n
		}
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, sectionNode(v.Index(i)))
		}
		return n
	case scalars:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			n.Content = append(n.Content, stringNode(escape(text(v.Index(i)))))
		}
		return n
	}
	if reflect.Indirect(v).Kind() == reflect.String || f.typ == secretType {
		return stringNode(escape(text(v)))
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text(v)}
}

func stringNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// escape keeps ${ from being read as a variable.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }

// text returns a scalar, or a list of them, as the file would have it, secrets
// redacted.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case Size:
		return x.String()
	case FileMode:
		return x.String()
	case Secret:
		return x.String()
	case netip.Prefix:
		if x.IsSingleIP() {
			return x.Addr().String()
		}
		return x.String()
	}
	if v.Kind() == reflect.Slice {
		all := make([]string, v.Len())
		for i := range all {
			all[i] = text(v.Index(i))
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// Setting is one setting with its value, as SHOW CONFIG lists them.
type Setting struct {
	// Path names the setting, elements by their name or their place in a list.
	Path string
	// Value is as the file would have it, secrets as "***".
	Value string
	// Default is the value without the key; empty for none.
	Default string
	// Restart is set when a reload cannot change the setting.
	Restart bool
}

// Settings returns every setting that has a value, in the order of the structs.
func (c *Config) Settings() []Setting { return settings(reflect.ValueOf(c).Elem(), "", nil) }

func settings(v reflect.Value, path string, list []Setting) []Setting {
	for _, f := range fieldsOf(v.Type()) {
		p, fv := joinPath(path, f.key), v.Field(f.index)
		switch f.nature() {
		case section:
			if fv.Kind() != reflect.Pointer {
				list = settings(fv, p, list)
			} else if !fv.IsNil() {
				list = settings(fv.Elem(), p, list)
			}
		case elements:
			for i := range fv.Len() {
				list = settings(fv.Index(i), elementPath(p, fv.Index(i), i, f.isMap), list)
			}
		default:
			list = append(list, Setting{Path: p, Value: text(fv), Default: f.defaultText(), Restart: f.restart})
		}
	}
	return list
}

func elementPath(list string, e reflect.Value, i int, isMap bool) string {
	switch {
	case isMap:
		return joinPath(list, nameOf(e))
	case e.FieldByName("Name").IsValid():
		return list + "[" + nameOf(e) + "]"
	}
	return fmt.Sprintf("%s[%d]", list, i)
}

// defaultText returns the default as the file would have it.
func (f *field) defaultText() string {
	if f.typ.Kind() == reflect.Slice {
		return "[" + f.def + "]"
	}
	return f.def
}
