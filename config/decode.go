package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

const (
	// maxSteps bounds the nodes looked at, since an alias of an alias of a
	// list multiplies. A user with three settings takes four.
	maxSteps = 200_000
	// maxProblems is where reading ends: nobody reads so many, and an alias
	// multiplies those too.
	maxProblems = 1000
	// maxRules bounds the rule list, each of which is held against all before.
	maxRules = 1000
	// maxMerges bounds the depth of << in <<, which may be circular.
	maxMerges = 16
)

type position struct{ line, column int }

// decoder turns nodes into the structs and gathers what is wrong on the way.
type decoder struct {
	file, dir string
	opts      Options
	problems  []Problem
	warnings  []Problem
	positions map[string]position // of every setting seen, by path
	steps     int
	// secretsInside is set when a secret stands in the file itself.
	secretsInside bool
}

// problem reports what is wrong with the node n.
func (d *decoder) problem(n *yaml.Node, path, message, hint string) {
	d.report(position{n.Line, n.Column}, path, message, hint)
}

// report adds a problem up to the bound.
func (d *decoder) report(at position, path, message, hint string) {
	switch len(d.problems) {
	case maxProblems:
		return
	case maxProblems - 1:
		at, path, message, hint = position{}, "", fmt.Sprintf("has %d problems or more; the rest is not shown", maxProblems), ""
	}
	d.problems = append(d.problems, Problem{
		File: d.file, Line: at.line, Column: at.column, Path: path, Message: message, Hint: hint,
	})
}

// over reports whether the file is to be read no further.
func (d *decoder) over() bool { return d.steps >= maxSteps || len(d.problems) >= maxProblems }

// warn reports what is probably not meant.
func (d *decoder) warn(path, message, hint string) {
	at := d.at(path)
	d.warnings = append(d.warnings, Problem{
		File: d.file, Line: at.line, Column: at.column, Path: path, Message: message, Hint: hint,
	})
}

// at returns where the setting stands, or the nearest section around it.
func (d *decoder) at(path string) position {
	for {
		if p, ok := d.positions[path]; ok || path == "" {
			return p
		}
		path = parentPath(path)
	}
}

// step follows aliases and counts; false when a bound is reached, which has
// been reported.
func (d *decoder) step(n *yaml.Node) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.steps++
	if d.steps == maxSteps {
		d.problem(n, "", fmt.Sprintf("the file has more than %d values, aliases counted each time", maxSteps), "")
	}
	return n, !d.over()
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindName says in words what a node is.
func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section of keys"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	return "a single value"
}

// section fills the struct v, which has its defaults, from the mapping n.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	if f := itself(v.Type()); f != nil {
		d.value(n, v.Field(f.index), f, path)
		return
	}
	n, ok := d.step(n)
	if !ok || isNull(n) {
		d.requireAll(n, v, path, nil)
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be a section of keys, not "+kindName(n), "")
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for _, p := range d.pairs(n, path) {
		seen[p.key.Value] = true
		child := joinPath(path, p.key.Value)
		f := findField(fields, p.key.Value)
		if f == nil {
			d.unknown(p.key, child, path, fields)
			continue
		}
		d.positions[child] = position{p.key.Line, p.key.Column}
		d.value(p.value, v.Field(f.index), f, child)
	}
	d.requireAll(n, v, path, seen)
}

// requireAll reports the required keys of the section v that are not seen.
func (d *decoder) requireAll(n *yaml.Node, v reflect.Value, path string, seen map[string]bool) {
	if d.over() {
		return
	}
	for _, f := range fieldsOf(v.Type()) {
		if f.required && !seen[f.key] {
			d.problem(n, joinPath(path, f.key), "is missing", "")
		}
	}
}

func findField(fields []field, key string) *field {
	for i := range fields {
		if fields[i].key == key {
			return &fields[i]
		}
	}
	return nil
}

// value fills v, the field f, from the node.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f *field, path string) {
	switch f.nature() {
	case section:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
			setDefaults(v)
		}
		d.section(n, v, path)
	case elements:
		if f.isMap {
			d.namedElements(n, v, path)
		} else {
			d.listedElements(n, v, path)
		}
	case scalars:
		d.list(n, v, f, path)
	case scalar:
		if n, ok := d.step(n); ok {
			d.scalar(n, v, f, path)
		}
	}
}

// namedElements fills the slice of structs v from a map; the key becomes Name.
func (d *decoder) namedElements(n *yaml.Node, v reflect.Value, path string) {
	n, ok := d.step(n)
	if !ok || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be a map from names, not "+kindName(n), "")
		return
	}
	for _, p := range d.pairs(n, path) {
		if d.over() {
			return
		}
		e := reflect.New(v.Type().Elem()).Elem()
		setDefaults(e)
		e.FieldByName("Name").SetString(p.key.Value)
		child := joinPath(path, p.key.Value)
		d.positions[child] = position{p.key.Line, p.key.Column}
		d.section(p.value, e, child)
		v.Set(reflect.Append(v, e))
	}
}

// listedElements fills the slice of structs v from a list.
func (d *decoder) listedElements(n *yaml.Node, v reflect.Value, path string) {
	n, ok := d.step(n)
	if !ok || isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "must be a list, not "+kindName(n), "")
		return
	}
	for i, c := range n.Content {
		if d.over() {
			return
		}
		e := reflect.New(v.Type().Elem()).Elem()
		setDefaults(e)
		child := path + "[" + strconv.Itoa(i) + "]"
		d.positions[child] = position{c.Line, c.Column}
		d.section(c, e, child)
		v.Set(reflect.Append(v, e))
	}
}

// list fills the slice of scalars v, which loses its default.
func (d *decoder) list(n *yaml.Node, v reflect.Value, f *field, path string) {
	n, ok := d.step(n)
	if !ok {
		return
	}
	items := n.Content
	switch {
	case n.Kind == yaml.ScalarNode && f.one && !isNull(n):
		items = []*yaml.Node{n}
		if n.Value == "" && !f.blank {
			items = nil
		}
	case n.Kind == yaml.SequenceNode:
	case isNull(n):
		d.noValue(n, path)
		return
	default:
		d.problem(n, path, "must be a list, not "+kindName(n), "")
		return
	}
	v.SetZero()
	for i, c := range items {
		child := path
		if n.Kind == yaml.SequenceNode {
			child += "[" + strconv.Itoa(i) + "]"
			d.positions[child] = position{c.Line, c.Column}
		}
		if c, ok := d.step(c); ok {
			d.item(c, v, f, child)
		}
	}
}

// item appends one scalar to the slice v.
func (d *decoder) item(n *yaml.Node, v reflect.Value, f *field, path string) {
	if v.Type().Elem() == prefixType && n.Value == All {
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			p, _ := parsePrefix(all)
			v.Set(reflect.Append(v, reflect.ValueOf(p)))
		}
		return
	}
	if f.blank && isNull(n) {
		d.problem(n, path, "is NULL, which no shard can hold as a key", "quote the word where it is a text")
		return
	}
	e := reflect.New(v.Type().Elem()).Elem()
	if !d.scalar(n, e, f, path) {
		return
	}
	if e.Kind() == reflect.String && e.Len() == 0 && !f.blank {
		d.problem(n, path, "is empty", "")
		return
	}
	v.Set(reflect.Append(v, e))
}

func (d *decoder) noValue(n *yaml.Node, path string) {
	d.problem(n, path, "has no value", "leave the key out for its default")
}

// scalar sets v from the scalar n; false when it could not.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, f *field, path string) bool {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, path, "must be a single value, not "+kindName(n), "")
		return false
	}
	if isNull(n) {
		d.noValue(n, path)
		return false
	}
	if !plainTag(n) {
		d.problem(n, path, "has the tag "+n.ShortTag(), "values take no tags")
		return false
	}
	text, expanded, ok := d.expand(n, path)
	if !ok {
		return false
	}
	if err := f.parse(v, text); err != nil {
		shown := strconv.Quote(n.Value)
		if expanded {
			shown = "what " + shown + " stands for"
		}
		d.problem(n, path, shown+" "+err.Error(), f.wants(n.Value, err))
		return false
	}
	if f.path {
		v.SetString(d.abs(v.String()))
	}
	if f.typ == secretType {
		d.checkFileSecrets(n.Value, path)
		d.secretsInside = d.secretsInside || !expanded
	}
	return true
}

func plainTag(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge":
		return true
	}
	return false
}

var fileVariable = regexp.MustCompile(`\$\{file:([^}]*)\}`)

func (d *decoder) checkFileSecrets(raw, path string) {
	for _, m := range fileVariable.FindAllStringSubmatch(raw, -1) {
		d.checkSecretMode(d.abs(m[1]), path)
	}
}
