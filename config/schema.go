package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// field is one key of a section, as the tags of a struct field say it.
type field struct {
	key      string // empty for what stands behind an element's name itself
	index    int
	typ      reflect.Type
	def      string // as in the file; of a list its only element
	hasDef   bool
	min, max string
	enum     []string
	required bool
	path     bool
	isMap    bool // a list of structs written as a map from names
	one      bool // a list that may be written as its only element
	restart  bool
	blank    bool // a list whose elements may be empty
}

// nature says how a field is written in the file.
type nature int

const (
	scalar   nature = iota
	scalars         // a list of scalars
	section         // a struct or a pointer to one
	elements        // a list or map of structs
)

func (f *field) nature() nature {
	switch {
	case f.typ.Kind() == reflect.Slice && isSection(f.typ.Elem()):
		return elements
	case f.typ.Kind() == reflect.Slice:
		return scalars
	case isSection(f.typ):
		return section
	case f.typ.Kind() == reflect.Pointer && isSection(f.typ.Elem()):
		return section
	}
	return scalar
}

var (
	durationType   = reflect.TypeFor[time.Duration]()
	sizeType       = reflect.TypeFor[Size]()
	secretType     = reflect.TypeFor[Secret]()
	fileModeType   = reflect.TypeFor[FileMode]()
	prefixType     = reflect.TypeFor[netip.Prefix]()
	identifierType = reflect.TypeFor[Identifier]()
)

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != secretType && t != prefixType
}

// fieldsOf returns the keys of the section t in the order of its fields.
func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key := sf.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		f := field{
			key: key, index: i, typ: sf.Type,
			min: sf.Tag.Get("min"), max: sf.Tag.Get("max"),
			required: sf.Tag.Get("required") == "true",
			path:     sf.Tag.Get("path") == "true",
			isMap:    sf.Tag.Get("form") == "map",
			one:      sf.Tag.Get("form") == "one",
			restart:  sf.Tag.Get("apply") == "restart",
			blank:    sf.Tag.Get("blank") == "true",
		}
		if key == "." {
			f.key = ""
		}
		f.def, f.hasDef = sf.Tag.Lookup("default")
		if e := sf.Tag.Get("enum"); e != "" {
			f.enum = strings.Split(e, "|")
		}
		list = append(list, f)
	}
	return list
}

// itself returns the field of an element of the type t that is written without a
// key, right behind the element's name; nil when t is a section of keys.
func itself(t reflect.Type) *field {
	if fields := fieldsOf(t); len(fields) == 1 && fields[0].key == "" {
		return &fields[0]
	}
	return nil
}

// setDefaults gives every field of the section v its default; sections behind
// pointers and elements of lists get theirs when the file has them.
func setDefaults(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		fv := v.Field(f.index)
		switch {
		case isSection(f.typ):
			setDefaults(fv)
		case !f.hasDef:
		case f.typ.Kind() == reflect.Slice:
			one := reflect.New(f.typ.Elem()).Elem()
			if err := f.parse(one, f.def); err != nil {
				panic("config: default of " + f.key + " " + err.Error())
			}
			fv.Set(reflect.Append(reflect.Zero(f.typ), one))
		default:
			if err := f.parse(fv, f.def); err != nil {
				panic("config: default of " + f.key + " " + err.Error())
			}
		}
	}
}

// parse sets v, which has the field's type or that of its elements, to what
// text says. The error reads on from the value: "is not a size".
func (f *field) parse(v reflect.Value, text string) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	x, err := f.read(v.Type(), text)
	if err != nil {
		return err
	}
	if err := f.inRange(v.Type(), x); err != nil {
		return err
	}
	v.Set(reflect.ValueOf(x).Convert(v.Type()))
	return nil
}

// read turns text into a value that converts to t.
func (f *field) read(t reflect.Type, text string) (any, error) {
	switch t {
	case durationType:
		return parseDuration(text)
	case sizeType:
		return parseSize(text)
	case fileModeType:
		return parseFileMode(text)
	case secretType:
		return NewSecret(text), nil
	case prefixType:
		return parsePrefix(text)
	case identifierType:
		return parseIdentifier(text)
	}
	switch t.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, errors.New("is neither true nor false")
		}
		return text == "true", nil
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return nil, f.rangeError()
		}
		if err != nil {
			return nil, errors.New("is not a whole number")
		}
		return n, nil
	}
	if f.enum != nil && !slices.Contains(f.enum, text) {
		return nil, fmt.Errorf("is none of %s", strings.Join(f.enum, ", "))
	}
	return text, nil
}

// inRange checks x, which read returned for the type t, against min and max.
func (f *field) inRange(t reflect.Type, x any) error {
	if f.min == "" && f.max == "" {
		return nil
	}
	number := func(x any) int64 { return reflect.ValueOf(x).Convert(reflect.TypeFor[int64]()).Int() }
	for _, bound := range []struct {
		text  string
		wrong func(n, bound int64) bool
	}{
		{f.min, func(n, b int64) bool { return n < b }},
		{f.max, func(n, b int64) bool { return n > b }},
	} {
		if bound.text == "" {
			continue
		}
		b, err := f.read(t, bound.text)
		if err != nil {
			panic("config: bound of " + f.key + " " + err.Error())
		}
		if bound.wrong(number(x), number(b)) {
			return f.rangeError()
		}
	}
	return nil
}

// rangeError is a value of the right form outside of its bounds.
type rangeError struct{ min, max string }

func (e rangeError) Error() string { return "is out of range: " + e.min + " to " + e.max }

func (f *field) rangeError() error { return rangeError{f.min, f.max} }

// parsePrefix reads an address in CIDR form, or a single one.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("is not an address, nor one with a prefix length such as 10.0.0.0/8")
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("has bits behind its prefix length; the network is %s", p.Masked())
	}
	return p, nil
}

// wants says for a hint what text, which parse refused with err, should have been.
func (f *field) wants(text string, err error) string {
	if errors.As(err, new(rangeError)) {
		return ""
	}
	t := f.typ
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case f.enum != nil:
		return didYouMean(text, f.enum)
	case t == durationType:
		return "a number with its unit, such as 500ms, 1s, 10m, 1h or 7d"
	case t == sizeType:
		return "a whole number with its unit, such as 64kB, 16MB or 1GB"
	case t == fileModeType:
		return "permission bits in octal, such as 0770"
	case errors.Is(err, errNameLong):
		return namesCut
	case t == identifierType:
		return `such as tenant_id, or '"Tenant ID"' with its quotes`
	}
	return ""
}
