package catalog

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// CallKind says what a callable is.
type CallKind byte

// The kinds of callables, as pg_proc has them.
const (
	CallFunction  CallKind = 'f'
	CallProcedure CallKind = 'p'
	CallAggregate CallKind = 'a'
	CallWindow    CallKind = 'w'
)

// Callable is one function, procedure, aggregate or window function.
type Callable struct {
	OID          uint32
	Schema, Name string
	Kind         CallKind
	// Language is its name in lower case: internal, c, sql, plpgsql, ...
	Language   string
	Volatility Volatility
	// Strict: NULL for any argument gives NULL, without a call.
	Strict     bool
	ReturnsSet bool
	// SecurityDefiner: it runs with its owner's rights.
	SecurityDefiner bool
	// OrderedSet says that an aggregate takes WITHIN GROUP.
	OrderedSet bool
	Returns    uint32
	// Arguments are the types of the input arguments; the last Defaults of them
	// may be left out. Variadic is the element type of the last one when it takes
	// any number, or that of "any".
	Arguments []uint32
	Defaults  int
	Variadic  uint32
	// Body is the source of one that initdb did not make; of BEGIN ATOMIC and
	// RETURN, which SQLBody marks, as PostgreSQL prints it.
	Body    string
	SQLBody bool

	// attributes are what else makes a difference between two databases.
	attributes string
	extension  string
}

// takes says whether a call with so many arguments can mean f; -1 is any number.
func (f *Callable) takes(args int) bool {
	n := len(f.Arguments)
	switch {
	case args < 0 || f.OrderedSet: // what stands in WITHIN GROUP counts too
		return true
	case f.Variadic != 0:
		return args >= n-1-f.Defaults
	}
	return args >= n-f.Defaults && args <= n
}

// withBodies puts what prints the body of BEGIN ATOMIC and RETURN, which came
// with version 14, in the place of NEWBODY.
func withBodies(sql string, version int) string {
	if version < 140000 {
		return strings.ReplaceAll(sql, "NEWBODY", "NULL::text")
	}
	return strings.ReplaceAll(sql, "NEWBODY", "pg_get_function_sqlbody(p.oid)")
}

func (r *tableReader) callable(row pgx.CollectableRow) error {
	var (
		f                                          Callable
		kind, volatility                           string
		newBody, source, attributes, extensionName *string
	)
	if err := row.Scan(&f.OID, &f.Schema, &f.Name, &kind, &f.Language, &volatility, &f.Strict, &f.ReturnsSet, &f.SecurityDefiner,
		&f.Returns, &f.Arguments, &f.Defaults, &f.Variadic, &f.OrderedSet, &newBody, &source, &attributes, &extensionName); err != nil {
		return err
	}
	f.Schema, f.Name, f.Language = r.intern(f.Schema), r.intern(f.Name), r.intern(f.Language)
	f.Kind, f.Volatility = CallKind(kind[0]), volatilityLetter(volatility)
	f.Body, f.SQLBody = text(source), newBody != nil
	if f.SQLBody {
		f.Body = *newBody
	}
	f.attributes, f.extension = text(attributes), r.intern(text(extensionName))
	r.c.calls[f.Name] = append(r.c.calls[f.Name], &f)
	r.c.callsByOID[f.OID] = &f
	return nil
}

// volatilityLetter reads pg_proc's letter.
func volatilityLetter(letter string) Volatility {
	switch letter {
	case "i":
		return Immutable
	case "s":
		return Stable
	}
	return Volatile
}

// CallableByOID returns a function, nil for one that the snapshot does not have.
func (c *Catalog) CallableByOID(oid uint32) *Callable { return c.callsByOID[oid] }

// Callables returns what a call of schema.name with so many arguments can mean,
// -1 when that is not known: all candidates that the search path reaches, in no
// order of preference. An empty schema means the search path.
func (c *Catalog) Callables(schema, name string, args int, path Path) []*Callable {
	var found []*Callable
	for _, f := range c.calls[name] {
		if path.reaches(schema, f.Schema) && f.takes(args) {
			found = append(found, f)
		}
	}
	return found
}

// IsAggregate says whether a call may be one of an aggregate: when any
// candidate is, and when there is none.
func (c *Catalog) IsAggregate(schema, name string, args int, path Path) bool {
	return c.anyCallable(schema, name, args, path, func(f *Callable) bool { return f.Kind == CallAggregate })
}

// IsWindow is IsAggregate for window functions that are no aggregates.
func (c *Catalog) IsWindow(schema, name string, args int, path Path) bool {
	return c.anyCallable(schema, name, args, path, func(f *Callable) bool { return f.Kind == CallWindow })
}

// ReturnsSet says whether a call may give several rows: when any candidate
// does, and when there is none.
func (c *Catalog) ReturnsSet(schema, name string, args int, path Path) bool {
	return c.anyCallable(schema, name, args, path, func(f *Callable) bool { return f.ReturnsSet })
}

// CallVolatility returns the worst volatility of the candidates of a call,
// Volatile when there is none.
func (c *Catalog) CallVolatility(schema, name string, args int, path Path) Volatility {
	worst, found := Immutable, false
	for _, f := range c.calls[name] {
		if path.reaches(schema, f.Schema) && f.takes(args) {
			worst, found = max(worst, f.Volatility), true
		}
	}
	if !found {
		return Volatile
	}
	return worst
}

func (c *Catalog) anyCallable(schema, name string, args int, path Path, is func(*Callable) bool) bool {
	found := false
	for _, f := range c.calls[name] {
		if !path.reaches(schema, f.Schema) || !f.takes(args) {
			continue
		}
		if is(f) {
			return true
		}
		found = true
	}
	return !found
}
