package catalog

import "slices"

// Catalog is what is known of one database at one moment. It is immutable.
type Catalog struct {
	version   uint64
	functions map[string][]function
	operators map[string][]object
	relations map[string][]relation
	// types holds only those that are not fit for every node.
	types map[string][]object
	// attributes holds the functions that a.b may call, by name; unsteadyAttributes names those that are not steady.
	attributes         map[string]Verdict
	unsteadyAttributes []string
	// command is the verdict on commands that change the catalog.
	command Verdict
	// roleSchemas are the schemas that $user may stand for.
	roleSchemas []string
	// customNames and customDynamic are what CustomSettings tells.
	customNames   []string
	customDynamic bool

	// What follows is only there when tables were loaded; see HasTables.

	tables      map[string][]*Table
	others      map[string][]otherRelation
	tablesByOID map[uint32]*Table
	userTables  []*Table
	usage       map[string]schemaUsage
	collations  map[uint32]*Collation
	namedTypes  map[string][]*NamedType
	typesByOID  map[uint32]*NamedType
	calls       map[string][]*Callable
	callsByOID  map[uint32]*Callable
	comparing   comparing
	reach       reachGraph
	// members belong to extensions or range types; extensions says which there
	// are, in words.
	members    map[nodeID]bool
	extensions map[string]string
}

// function is one overload of a function as it is called.
type function struct {
	object
	minArgs, maxArgs int // maxArgs < 0: any number
	writes           Reach
}

// fits reports whether it can be called with so many arguments, -1 for any number.
func (f *function) fits(args int) bool {
	return args < 0 || args >= f.minArgs && (f.maxArgs < 0 || args <= f.maxArgs)
}

// object is anything found by schema and name.
type object struct {
	schema   string
	verdict  Verdict
	unsteady bool // see Steady
}

// relation holds one verdict for reading and one for writing.
type relation struct {
	schema        string
	read, write   Verdict
	reads, writes Reach
}

// Version grows with every snapshot that a Refresher publishes; 0 for one that
// was loaded by Load alone.
func (c *Catalog) Version() uint64 { return c.version }

// Function judges a call of schema.name with so many arguments, -1 when that
// is not known. An empty schema means the search path. A function that is not
// found is Unsafe.
func (c *Catalog) Function(schema, name string, args int, path Path) Verdict {
	var v Verdict
	for _, f := range c.functions[name] {
		if f.fits(args) && path.reaches(schema, f.schema) {
			v = v.worse(f.verdict)
		}
	}
	if !v.Found {
		return Verdict{Fitness: Unsafe, Why: "calls function " + name + ", which the catalog does not know"}
	}
	return v
}

// Builtin reports whether every function of the name is PostgreSQL's own.
func (c *Catalog) Builtin(name string) bool {
	for _, f := range c.functions[name] {
		if f.schema != "pg_catalog" {
			return false
		}
	}
	return len(c.functions[name]) > 0
}

// Operator judges an operator of any operand types. One that is not found is
// Unsafe.
func (c *Catalog) Operator(schema, name string, path Path) Verdict {
	if name == "!=" {
		name = "<>" // as PostgreSQL's lexer does
	}
	var v Verdict
	for _, o := range c.operators[name] {
		if path.reaches(schema, o.schema) {
			v = v.worse(o.verdict)
		}
	}
	if !v.Found {
		return Verdict{Fitness: Unsafe, Why: "uses operator " + name + ", which the catalog does not know"}
	}
	return v
}

// Type judges naming a type in a cast or a literal: by its input and output
// functions, the checks of a domain, the casts to and from it, its comparison
// operators. Types without such functions are not kept, so that nothing found
// means nothing to fear.
func (c *Catalog) Type(schema, name string, path Path) Verdict {
	var v Verdict
	for _, t := range c.types[name] {
		if path.reaches(schema, t.schema) {
			v = v.worse(t.verdict)
		}
	}
	return v
}

// Read judges reading a table, view or other relation. One that is not found
// is assumed to be new or temporary: Writes.
func (c *Catalog) Read(schema, name string, path Path) Verdict {
	var v Verdict
	for _, r := range c.relations[name] {
		if path.reaches(schema, r.schema) {
			v = v.worse(r.read)
		}
	}
	if !v.Found {
		return Verdict{Fitness: Writes, Why: "reads relation " + name + ", which the catalog does not know"}
	}
	return v
}

// Write judges writing to a relation by what fires or is called then:
// triggers, rules, defaults, constraints, also of partitions, of tables under
// a view and of tables that a foreign key reaches. It is at least Writes.
func (c *Catalog) Write(schema, name string, path Path) Verdict {
	v := Verdict{Fitness: Writes}
	for _, r := range c.relations[name] {
		if path.reaches(schema, r.schema) {
			v = v.worse(r.write)
		}
	}
	return v
}

// Command judges a command that changes the catalog by the event triggers it
// fires. It is at least Writes.
func (c *Catalog) Command() Verdict {
	return c.command.worse(Verdict{Fitness: Writes, Found: true})
}

// Attribute judges a.name, which PostgreSQL reads as name(a) when the row a
// has no such column. Nothing found means that it can only be a column.
func (c *Catalog) Attribute(name string) Verdict {
	return c.attributes[name]
}

// Path is a search path as far as names are looked up in it. The zero value is
// an unknown path: every schema is in reach.
type Path struct {
	known   bool
	schemas []string // in any order
	// steps are the schemas in order; role is the session's, "" when not known.
	steps []pathStep
	role  string
}

// Path reads the value of search_path as SHOW gives it. $user stands for every
// schema that is named like a role. A value that cannot be read is like an
// unknown path.
func (c *Catalog) Path(value string) Path {
	names, ok := SplitNames(value)
	if !ok {
		return Path{}
	}
	p := Path{known: true, schemas: []string{"pg_catalog"}}
	for _, n := range names {
		if n == "$user" {
			p.schemas = append(p.schemas, c.roleSchemas...)
			continue
		}
		p.schemas = append(p.schemas, n)
	}
	p.steps = pathSteps(names, c.userSteps())
	return p
}

// reaches says whether a thing in schema have is meant by a name with schema
// want.
func (p Path) reaches(want, have string) bool {
	if want != "" {
		return want == have
	}
	return !p.known || slices.Contains(p.schemas, have)
}
