package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The rules by which rows are placed, as a cluster keeps them. What is empty is left out, so that a text stays
// what it is when a later version knows more.
type keptRules struct {
	Tables    map[string]keptTable    `json:"tables,omitempty"`
	Keys      []Identifier            `json:"keys,omitempty"`
	Schemas   map[string]string       `json:"schemas,omitempty"`
	Functions map[string]keptFunction `json:"functions,omitempty"`
}

type keptTable struct {
	Key       []Identifier        `json:"key,omitempty"`
	Reference bool                `json:"reference,omitempty"`
	Single    bool                `json:"single,omitempty"`
	List      map[string][]string `json:"list,omitempty"`
	Range     []keptRange         `json:"range,omitempty"`
	Default   string              `json:"default,omitempty"`
}

type keptRange struct {
	Shard string  `json:"shard"`
	From  *string `json:"from,omitempty"`
	To    *string `json:"to,omitempty"`
}

type keptFunction struct {
	Arguments []int  `json:"argument"`
	Table     string `json:"table"`
}

// Rules returns the rules by which rows are placed (Tables, Keys, Schemas and Functions) as JSON: equal texts place
// alike. What does not place is left out, as PerShardConstraints.
func (db *Database) Rules() string {
	r := keptRules{Tables: map[string]keptTable{}, Schemas: map[string]string{}, Functions: map[string]keptFunction{}}
	for _, t := range db.Tables {
		k := keptTable{Key: t.Key, Reference: t.Reference, Single: t.Single, Default: t.Default}
		for _, e := range t.List {
			if k.List == nil {
				k.List = map[string][]string{}
			}
			k.List[e.Name] = slices.Sorted(slices.Values(e.Values))
		}
		for _, e := range t.Range {
			k.Range = append(k.Range, keptRange(e))
		}
		r.Tables[writtenAlike(t.Name)] = k
	}
	r.Keys = db.Keys
	for _, s := range db.Schemas {
		prefix, pattern := strings.CutSuffix(s.Name, "*")
		name := Identifier(fold(prefix)).String()
		if pattern {
			name += "*"
		}
		r.Schemas[name] = s.Shard
	}
	for _, f := range db.Functions {
		r.Functions[writtenAlike(f.Name)] = keptFunction{f.Arguments, writtenAlike(f.Table)}
	}
	text, _ := json.Marshal(r) // of what it holds, all can be
	return string(text)
}

// WithRules returns the database with the rules of a text that Rules has given, and no others. The error says that the text
// is none of this version's.
func (db *Database) WithRules(text string) (*Database, error) {
	var r keptRules
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("the rules are not such as this version knows: %w", err)
	}
	is := *db
	is.Tables, is.Keys, is.Schemas, is.Functions = nil, r.Keys, nil, nil
	is.index = ruleIndex{map[string]int{}, map[string]int{}, map[string]int{}}
	for _, name := range slices.Sorted(maps.Keys(r.Tables)) {
		k := r.Tables[name]
		t := Table{Name: name, Key: k.Key, Reference: k.Reference, Single: k.Single, Default: k.Default}
		for _, shard := range slices.Sorted(maps.Keys(k.List)) {
			t.List = append(t.List, ListEntry{shard, k.List[shard]})
		}
		for _, e := range k.Range {
			t.Range = append(t.Range, RangeEntry(e))
		}
		if err := indexed(is.index.tables, name, len(is.Tables)); err != nil {
			return nil, err
		}
		is.Tables = append(is.Tables, t)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Schemas)) {
		s := Schema{Name: name, Shard: r.Schemas[name]}
		is.index.schemas[s.key()] = len(is.Schemas)
		is.Schemas = append(is.Schemas, s)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Functions)) {
		if err := indexed(is.index.functions, name, len(is.Functions)); err != nil {
			return nil, err
		}
		is.Functions = append(is.Functions, Function{name, r.Functions[name].Arguments, r.Functions[name].Table})
	}
	return &is, nil
}

func indexed(index map[string]int, name string, i int) error {
	schema, table, err := splitName(name)
	if err != nil {
		return fmt.Errorf("the rules have %q: %w", name, err)
	}
	index[qualified(schema, table)] = i
	return nil
}

// writtenAlike writes a name as every other that means the same is written.
func writtenAlike(name string) string {
	schema, last, err := splitName(name)
	if err != nil {
		return name // Load has refused it
	}
	if last = Identifier(last).String(); schema != "" {
		return Identifier(schema).String() + "." + last
	}
	return last
}
