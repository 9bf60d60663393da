package config

import (
	"fmt"
	"strconv"
	"strings"

	"shardproxy/shardmap"
)

// sharding checks where the rows of a database are to live, and indexes its
// rules.
type sharding struct {
	*validator
	db     *Database
	path   string          // of the database
	shards map[string]bool // by name
}

func (v *validator) sharding(db *Database, path string) {
	s := &sharding{validator: v, db: db, path: path, shards: map[string]bool{}}
	for _, one := range db.Shards {
		s.shards[one.Name] = true
	}
	if shardmap.CheckSlots(db.Slots) != nil {
		v.add(path+".slots", fmt.Sprintf("%d is no power of two", db.Slots), "such as "+strconv.Itoa(shardmap.DefaultSlots))
	}
	s.schemas()
	tables := s.tables()
	s.columns(db.Keys, path+".keys")
	s.functions(tables)
	if v.opts.OneShard {
		s.oneShard()
	}
}

// oneShard refuses what a program without sharding cannot do, and warns of what
// it does not look at.
func (s *sharding) oneShard() {
	if n := len(s.db.Shards); n > 1 {
		s.add(s.path+".shards[1]", fmt.Sprintf("the database has %d shards, and this version serves databases of one shard", n),
			"one shard with all its nodes; a database for each of the others")
		return
	}
	for _, section := range []struct {
		key   string
		rules int
	}{
		{".tables", len(s.db.Tables)}, {".keys", len(s.db.Keys)}, {".schemas", len(s.db.Schemas)}, {".functions", len(s.db.Functions)},
	} {
		if section.rules > 0 {
			s.warn(s.path+section.key, "nothing is sharded in this version: every row is on the one shard", "leave the section out")
		}
	}
}

// shard reports the name of no shard.
func (s *sharding) shard(path, name string) {
	if s.shards[name] || len(s.shards) == 0 || !s.clean(s.path+".shards") {
		return
	}
	var known []string
	for _, one := range s.db.Shards[:min(10, len(s.db.Shards))] {
		known = append(known, one.Name)
	}
	if len(known) < len(s.db.Shards) {
		known = append(known, "...")
	}
	s.add(path, fmt.Sprintf("there is no shard %q", name), "known here: "+strings.Join(known, ", "))
}

// columns checks that a list names each column once.
func (s *sharding) columns(names []Identifier, path string) {
	seen := map[string]string{}
	for i, c := range names {
		s.unique(s.listPath(path, i), string(c), seen, "the column is listed twice, first on line %d")
	}
}

// schemas checks and indexes the rules for schemas.
func (s *sharding) schemas() {
	index := map[string]int{}
	for i := range s.db.Schemas {
		rule := &s.db.Schemas[i]
		at, key := s.schemaPath(i), rule.key()
		switch {
		case !schemaPattern.MatchString(rule.Name):
			s.add(at, "is not a schema's name", "the name, or how it begins with a * behind it")
			continue
		case len(strings.TrimSuffix(key, schemaPrefix(""))) > maxNameBytes:
			s.add(at, errNameLong.Error(), namesCut)
		case ownSchema(key):
			s.add(at, "is "+ownSchemaText, "")
		}
		if first, twice := index[key]; twice {
			s.add(at, fmt.Sprintf("is the schema of the rule on line %d too", s.at(s.schemaPath(first)).line), "")
		} else {
			index[key] = i
		}
		if rule.Shard != SchemaByHash {
			s.shard(at, rule.Shard)
		} else if s.shards[SchemaByHash] {
			s.add(at, "may mean the shard of that name, or the one that the schema's name hashes to", "give the shard another name")
		}
	}
	s.db.index.schemas = index
}

func (s *sharding) schemaPath(i int) string { return joinPath(s.path+".schemas", s.db.Schemas[i].Name) }

const ownSchemaText = "PostgreSQL's or the proxy's own schema"

// namedRules finds rules that are for the same table or function.
type namedRules struct {
	what, path string           // table or function, and where the rules are
	rules      map[string]int   // by qualified
	inSchemas  map[string][]int // those with a schema, by the name alone
	written    map[int]string   // as the file has them
}

func newNamedRules(what, path string) *namedRules {
	return &namedRules{what, path, map[string]int{}, map[string][]int{}, map[int]string{}}
}

// find returns the rules that a name may mean.
func (n *namedRules) find(schema, name string) []int {
	for _, in := range []string{schema, ""} {
		if i, ok := n.rules[qualified(in, name)]; ok {
			return []int{i}
		}
	}
	if schema == "" {
		return n.inSchemas[name]
	}
	return nil
}

// ruleName checks and indexes the name of the i-th rule.
func (s *sharding) ruleName(n *namedRules, i int, written string) {
	at := joinPath(n.path, written)
	schema, name, err := splitName(written)
	switch {
	case err == errNameLong:
		s.add(at, err.Error(), namesCut)
		return
	case err != nil:
		s.add(at, "is not a "+n.what+"'s name", "the name alone or schema.name")
		return
	case ownSchema(schema):
		s.add(at, "is in "+ownSchemaText, "")
	}
	if placed, ok := s.placed(schema); ok {
		s.add(at, fmt.Sprintf("is in a schema that the rule on line %d places as a whole", s.at(s.schemaPath(placed)).line), "")
	}
	if may := n.find(schema, name); len(may) > 0 {
		first := n.written[may[0]]
		s.add(at, fmt.Sprintf("may be the %s of the rule for %s on line %d", n.what, first, s.at(joinPath(n.path, first)).line),
			"one rule for each "+n.what+"; with a schema in all, or without")
		return
	}
	n.rules[qualified(schema, name)], n.written[i] = i, written
	if schema != "" {
		n.inSchemas[name] = append(n.inSchemas[name], i)
	}
}

// placed returns the rule that places a schema, or any schema when the name is
// empty.
func (s *sharding) placed(schema string) (int, bool) {
	if schema == "" {
		i, ok := s.db.index.schemas[schemaPrefix("")]
		return i, ok
	}
	rule := s.db.SchemaRule(schema)
	if rule == nil {
		return 0, false
	}
	return s.db.index.schemas[rule.key()], true
}

// tables checks and indexes the rules for tables.
func (s *sharding) tables() *namedRules {
	n := newNamedRules("table", s.path+".tables")
	for i := range s.db.Tables {
		t := &s.db.Tables[i]
		at := joinPath(n.path, t.Name)
		s.ruleName(n, i, t.Name)
		s.kind(t, at)
		if t.Default != "" {
			s.shard(at+".default", t.Default)
		}
		s.columns(t.Key, at+".key")
		s.listed(t.List, at+".list")
		s.ranges(t.Range, at+".range")
	}
	s.db.index.tables = n.rules
	return n
}

// kind checks that a rule says one thing of its table.
func (s *sharding) kind(t *Table, at string) {
	keyed, placed := len(t.Key) > 0, len(t.List) > 0 || len(t.Range) > 0
	switch {
	case keyed && t.Reference:
		s.add(at, "has a key and is a reference table", "a table is either sharded by a key or the same on every shard")
	case keyed && t.Single:
		s.add(at, "has a key and is single", "a table is either sharded by a key or on the home shard")
	case t.Reference && t.Single:
		s.add(at, "is a reference table and single", "a table is either the same on every shard or on the home shard")
	case !keyed && placed:
		s.add(at, "has a list or a range and no key", "the key is the column that they are about")
	case !keyed && t.PerShardConstraints:
		s.add(at+".per_shard_constraints", "is for tables with a key", "")
	case !keyed && !t.Reference && !t.Single:
		s.add(at, "has neither a key nor reference: true nor single: true", "leave a table out that lives on the home shard only")
	case placed && len(t.Key) > 1:
		s.add(at+".key", fmt.Sprintf("has %d columns, and a list or a range takes one", len(t.Key)), "")
	case len(t.List) > 0 && len(t.Range) > 0:
		s.add(at+".range", "there is a list too", "give one of them")
	}
	if t.Default != "" && !placed {
		s.add(at+".default", "there is neither a list nor a range", "a key that is hashed always has its shard")
	}
}

// listed checks the values of a list. Whether two texts are one value shows when
// the key's type is known.
func (s *sharding) listed(entries []ListEntry, path string) {
	seen := map[string]string{}
	for _, e := range entries {
		at := joinPath(path, e.Name)
		s.shard(at, e.Name)
		if len(e.Values) == 0 {
			s.add(at, "there is no value", "leave the shard out")
		}
		for i, value := range e.Values {
			s.unique(s.listPath(at, i), value, seen, "the value is listed twice, first on line %d")
		}
	}
}

// ranges checks the bounds of ranges as far as texts go; the rest shows when the
// key's type is known.
func (s *sharding) ranges(entries []RangeEntry, path string) {
	seen := map[string]string{}
	for i, e := range entries {
		at := path + "[" + strconv.Itoa(i) + "]"
		s.shard(at+".shard", e.Shard)
		from := "\x00" // no bound; texts have no zero bytes
		if e.From != nil {
			from = *e.From
		}
		if e.To != nil && *e.To == from {
			s.add(at, "is empty: it ends where it begins", "to is the first key that is not in the range")
			continue
		}
		s.unique(at, from, seen, "begins where the range on line %d does")
	}
}

// functions checks and indexes the rules for functions.
func (s *sharding) functions(tables *namedRules) {
	n := newNamedRules("function", s.path+".functions")
	for i := range s.db.Functions {
		f := &s.db.Functions[i]
		at := joinPath(n.path, f.Name)
		s.ruleName(n, i, f.Name)
		seen := map[string]string{}
		for j, a := range f.Arguments {
			s.unique(s.listPath(at+".argument", j), strconv.Itoa(a), seen, "the argument is listed twice, first on line %d")
		}
		if s.clean(at+".table") && s.clean(tables.path) && s.clean(s.path+".keys") {
			s.function(f, at, tables)
		}
	}
	s.db.index.functions = n.rules
}

// function checks that the arguments give the key of the table.
func (s *sharding) function(f *Function, at string, tables *namedRules) {
	schema, name, err := splitName(f.Table)
	found := tables.find(schema, name)
	columns := 1
	switch _, placed := s.placed(schema); {
	case err != nil:
		s.add(at+".table", fmt.Sprintf("%q is not a table's name", f.Table), "the name alone or schema.name")
		return
	case placed:
		s.add(at+".table", fmt.Sprintf("the table %s is in a schema that is placed as a whole", f.Table), "only a key is found by arguments")
		return
	case len(found) > 1:
		s.add(at+".table", fmt.Sprintf("may be %s or %s", tables.written[found[0]], tables.written[found[1]]), "write it with its schema")
		return
	case len(found) == 0 && len(s.db.Keys) == 0:
		s.add(at+".table", fmt.Sprintf("there is no rule for the table %s", f.Table), "a rule in tables gives it a key, or keys does")
		return
	case len(found) == 1:
		columns = len(s.db.Tables[found[0]].Key)
	}
	switch {
	case columns == 0:
		s.add(at+".table", fmt.Sprintf("the table %s has no key", f.Table), "only a key is found by arguments")
	case columns != len(f.Arguments):
		s.add(at+".argument", fmt.Sprintf("has %s, and the key of %s %s",
			plural(len(f.Arguments), "argument"), f.Table, plural(columns, "column")), "")
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
