package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// yamlMap is a mapping in the order in which it is written. A value is a yamlMap, a []any of these, or what yamlScalar takes.
type yamlMap []yamlEntry

type yamlEntry struct {
	key   string
	value any
}

// set appends an entry, or takes another's place.
func (m *yamlMap) set(key string, value any) {
	for i := range *m {
		if (*m)[i].key == key {
			(*m)[i].value = value
			return
		}
	}
	*m = append(*m, yamlEntry{key, value})
}

// sub returns the mapping under a key, which it makes if need be.
func (m *yamlMap) sub(key string) *yamlMap {
	for i := range *m {
		if (*m)[i].key == key {
			return (*m)[i].value.(*yamlMap)
		}
	}
	sub := &yamlMap{}
	*m = append(*m, yamlEntry{key, sub})
	return sub
}

// texts returns the texts under a key, nil for none.
func (m *yamlMap) texts(key string) []string {
	for _, e := range *m {
		switch v := e.value.(type) {
		case []string:
			if e.key == key {
				return v
			}
		case string:
			if e.key == key {
				return []string{v}
			}
		}
	}
	return nil
}

// write writes the mapping's entries, indented.
func (m *yamlMap) write(b *strings.Builder, indent string) {
	for _, e := range *m {
		b.WriteString(indent + yamlKey(e.key) + ":")
		switch v := e.value.(type) {
		case *yamlMap:
			if len(*v) == 0 {
				b.WriteString(" {}\n")
				continue
			}
			b.WriteByte('\n')
			v.write(b, indent+"  ")
		case []*yamlMap:
			b.WriteByte('\n')
			for _, item := range v {
				b.WriteString(indent + "  - " + item.flow() + "\n")
			}
		case []string:
			b.WriteString(" [")
			for i, s := range v {
				if i > 0 {
					b.WriteString(", ")
				}
				b.WriteString(yamlScalar(s))
			}
			b.WriteString("]\n")
		default:
			b.WriteString(" " + yamlScalar(v) + "\n")
		}
	}
}

// flow writes the mapping in one line.
func (m *yamlMap) flow() string {
	var parts []string
	for _, e := range *m {
		switch v := e.value.(type) {
		case *yamlMap:
			parts = append(parts, yamlKey(e.key)+": "+v.flow())
		case []string:
			var items []string
			for _, s := range v {
				items = append(items, yamlScalar(s))
			}
			parts = append(parts, yamlKey(e.key)+": ["+strings.Join(items, ", ")+"]")
		default:
			parts = append(parts, yamlKey(e.key)+": "+yamlScalar(v))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// yamlKey writes a key: as it is when it is a plain word.
func yamlKey(key string) string {
	plain := strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") == ""
	if plain && key != "" && key != "true" && key != "false" && key != "null" && key != "yes" && key != "no" && key != "on" && key != "off" && key != "y" && key != "n" {
		return key
	}
	return yamlScalar(key)
}

// yamlScalar writes a value. A text is one whatever it looks like, and has no variables in it.
func yamlScalar(v any) string {
	s, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	quoted, _ := json.Marshal(strings.ReplaceAll(s, "${", "$${")) // of a string it cannot fail; YAML reads what JSON writes
	return string(quoted)
}
