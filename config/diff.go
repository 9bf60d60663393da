package config

import (
	"reflect"
	"strconv"
)

// Change is one setting that differs between two configurations.
type Change struct {
	// Path names the setting, elements by their name: users[app].pool_size,
	// databases.shop.shards[s0].nodes. A whole element that came or went is
	// one change.
	Path string
	// Old and New are the values as the file would have them, secrets as
	// "***"; empty where there is none, "(set)" for a whole section or element.
	Old, New string
	// Restart is set when a reload cannot apply the change.
	Restart bool
}

// whole stands for a section or an element of a list.
const whole = "(set)"

// Added reports whether a whole section or element came.
func (c Change) Added() bool { return c.Old == "" && c.New == whole }

// Removed reports whether a whole section or element went.
func (c Change) Removed() bool { return c.Old == whole && c.New == "" }

// Diff returns what changes from old to next, in the order of the settings. A
// secret that changed shows as a change from "***" to "***". The order of
// users and databases means nothing; that of shards and rules does. Files that
// keep their name and change their content show only where Load reads them
// into the configuration, as it does with passwords.
func Diff(old, next *Config) []Change {
	var d differ
	d.section("", reflect.ValueOf(old).Elem(), reflect.ValueOf(next).Elem())
	for i, c := range d.changes {
		// The listener learns once whether it encrypts.
		if c.Path == "listen.tls.mode" && (c.Old == TLSDisable || c.New == TLSDisable) {
			d.changes[i].Restart = true
		}
	}
	return d.changes
}

type differ struct{ changes []Change }

func (d *differ) add(path, was, is string, f *field) {
	d.changes = append(d.changes, Change{Path: path, Old: was, New: is, Restart: f.restart})
}

func (d *differ) section(path string, a, b reflect.Value) {
	for _, f := range fieldsOf(a.Type()) {
		p := joinPath(path, f.key)
		x, y := a.Field(f.index), b.Field(f.index)
		switch f.nature() {
		case elements:
			d.elements(p, x, y, &f)
		case section:
			if x.Kind() == reflect.Pointer {
				if x.IsNil() != y.IsNil() {
					d.add(p, presence(!x.IsNil()), presence(!y.IsNil()), &f)
				}
				if x.IsNil() || y.IsNil() {
					continue
				}
				x, y = x.Elem(), y.Elem()
			}
			d.section(p, x, y)
		default:
			if !same(x, y) {
				d.add(p, text(x), text(y), &f)
			}
		}
	}
}

func same(x, y reflect.Value) bool { return reflect.DeepEqual(x.Interface(), y.Interface()) }

// presence shows a whole section or element.
func presence(there bool) string {
	if there {
		return whole
	}
	return ""
}

// elements compares two lists of structs: by name, or as a whole where the
// elements have none.
func (d *differ) elements(path string, a, b reflect.Value, f *field) {
	if _, named := f.typ.Elem().FieldByName("Name"); !named {
		if !same(a, b) {
			d.add(path, count(a), count(b), f)
		}
		return
	}
	before, after := byName(a), byName(b)
	at := func(name string) string {
		if f.isMap {
			return joinPath(path, name)
		}
		return path + "[" + name + "]"
	}
	moved := false
	for i := range a.Len() {
		name := nameOf(a.Index(i))
		j, kept := after[name]
		if !kept {
			d.add(at(name), presence(true), "", f)
			continue
		}
		moved = moved || i != j
		d.section(at(name), a.Index(i), b.Index(j))
	}
	added := false
	for i := range b.Len() {
		if _, had := before[nameOf(b.Index(i))]; !had {
			d.add(at(nameOf(b.Index(i))), "", presence(true), f)
			added = true
		}
	}
	if moved && !added && a.Len() == b.Len() && f.ordered() {
		d.add(path, names(a), names(b), f)
	}
}

// ordered reports whether the order of the list's named elements means anything.
func (f *field) ordered() bool { return f.typ.Elem() == reflect.TypeFor[Shard]() }

func nameOf(element reflect.Value) string { return element.FieldByName("Name").String() }

func byName(list reflect.Value) map[string]int {
	m := make(map[string]int, list.Len())
	for i := range list.Len() {
		m[nameOf(list.Index(i))] = i
	}
	return m
}

func names(list reflect.Value) string {
	all := make([]string, list.Len())
	for i := range all {
		all[i] = nameOf(list.Index(i))
	}
	return text(reflect.ValueOf(all))
}

func count(list reflect.Value) string {
	if list.Len() == 1 {
		return "1 entry"
	}
	return strconv.Itoa(list.Len()) + " entries"
}
