package catalog

import (
	"cmp"
	"slices"

	"github.com/jackc/pgx/v5"
)

// OIDs of PostgreSQL's built-in types.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidFloat8      = 701
	oidUnknown     = 705
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
)

func isInteger(oid uint32) bool { return oid == oidInt2 || oid == oidInt4 || oid == oidInt8 }

func isText(oid uint32) bool { return oid == oidText || oid == oidVarchar }

// comparing is what is known of operators that compare.
type comparing struct {
	operators map[string][]operator
	// btree and hash are the families of the types' default operator classes.
	btree, hash map[uint32]uint32
	// strategies say what an operator is in a family; without an entry it is no
	// member.
	strategies map[familyMember]int16
	implicit   map[cast]bool
}

// operator is a binary operator.
type operator struct {
	schema           string
	oid, left, right uint32
}

type familyMember struct{ family, operator uint32 }

type cast struct{ from, to uint32 }

func newComparing() comparing {
	return comparing{operators: map[string][]operator{}, btree: map[uint32]uint32{}, hash: map[uint32]uint32{},
		strategies: map[familyMember]int16{}, implicit: map[cast]bool{}}
}

func (r *tableReader) operatorTypes(row pgx.CollectableRow) error {
	var o operator
	var name string
	if err := row.Scan(&o.oid, &o.schema, &name, &o.left, &o.right); err != nil {
		return err
	}
	o.schema, name = r.intern(o.schema), r.intern(name)
	r.c.comparing.operators[name] = append(r.c.comparing.operators[name], o)
	return nil
}

func (r *tableReader) defaultFamily(row pgx.CollectableRow) error {
	var typ, family uint32
	var method string
	if err := row.Scan(&typ, &method, &family); err != nil {
		return err
	}
	if method == "hash" {
		r.c.comparing.hash[typ] = family
	} else {
		r.c.comparing.btree[typ] = family
	}
	return nil
}

func (r *tableReader) familyMember(row pgx.CollectableRow) error {
	var m familyMember
	var strategy int16
	err := row.Scan(&m.family, &m.operator, &strategy)
	r.c.comparing.strategies[m] = strategy
	return err
}

func (r *tableReader) implicitCast(row pgx.CollectableRow) error {
	var c cast
	err := row.Scan(&c.from, &c.to)
	r.c.comparing.implicit[c] = true
	return err
}

// The strategies of a btree, and that of a hash.
const (
	btreeEqual = 3
	hashEqual  = 1
)

// btreeStrategy is what an operator of this name is expected to be.
var btreeStrategy = map[string]int16{"<": 1, "<=": 2, "=": btreeEqual, ">=": 4, ">": 5}

// EqualityFor says whether left op right, for an op among = < <= >= >, is the
// comparison that the default operator classes of left's type stand for: that
// of indexes and sorting and, for =, of hashing where the type can be hashed.
// The types are those of the operands as they stand, domains and varchar too;
// 0 is an untyped literal or an undeclared parameter. False means no, or not
// known: another operator may be meant. Of text the caller must also know the
// collation: with one that is not deterministic, equal strings hash alike but
// differ in their bytes.
func (c *Catalog) EqualityFor(opSchema, op string, left, right uint32, path Path) bool {
	o, ok := c.comparison(opSchema, op, left, right, path)
	if !ok {
		return false
	}
	typ := o.left
	btree, ok := c.comparing.btree[typ]
	if !ok || c.comparing.strategies[familyMember{btree, o.oid}] != btreeStrategy[op] {
		return false
	}
	hash, ok := c.comparing.hash[typ]
	return op != "=" || !ok || c.comparing.strategies[familyMember{hash, o.oid}] == hashEqual
}

// comparison finds the one operator of PostgreSQL's own that op must mean for
// operands of these types.
func (c *Catalog) comparison(opSchema, op string, left, right uint32, path Path) (operator, bool) {
	if _, compares := btreeStrategy[op]; !compares || opSchema != "" && opSchema != "pg_catalog" {
		return operator{}, false
	}
	l, lok := c.operand(left)
	r, rok := c.operand(right)
	if !lok || !rok || l == 0 && r == 0 || opSchema == "" && !c.certain(op, left, right, path) && c.otherMeant(op, l, r, path) {
		return operator{}, false
	}
	l, r = alike(l, r)
	return c.builtinOperator(op, stored(l), stored(r))
}

// builtinOperator finds PostgreSQL's own operator for exactly these types.
func (c *Catalog) builtinOperator(op string, left, right uint32) (operator, bool) {
	for _, o := range c.comparing.operators[op] {
		if o.schema == "pg_catalog" && o.left == left && o.right == right {
			return o, true
		}
	}
	return operator{}, false
}

// certain says whether op is PostgreSQL's own before others are looked at: it has
// one for exactly these types, and pg_catalog is searched first.
func (c *Catalog) certain(op string, left, right uint32, path Path) bool {
	if !path.known || path.steps[0].schema != "pg_catalog" {
		return false
	}
	if left == oidUnknown {
		left = 0
	}
	if right == oidUnknown {
		right = 0
	}
	left, right = alike(left, right)
	_, ok := c.builtinOperator(op, left, right)
	return ok
}

// operand is the type by which PostgreSQL looks for operators: a domain's base,
// 0 for what has no type yet. False when the type is not in the snapshot.
func (c *Catalog) operand(oid uint32) (uint32, bool) {
	if oid == oidUnknown || oid == 0 {
		return 0, true
	}
	base := c.BaseOf(oid)
	return base, base != 0
}

// alike gives an operand without a type the other's.
func alike(left, right uint32) (uint32, uint32) {
	return cmp.Or(left, right), cmp.Or(right, left)
}

// stored is the type whose operators a type uses that has none: varchar's are text's.
func stored(oid uint32) uint32 {
	if oid == oidVarchar {
		return oidText
	}
	return oid
}

// otherMeant says whether an operator that is not PostgreSQL's own may be meant
// by op: one within reach whose operands these types could become. An operand
// without a type is taken for the other's when there is an operator for that;
// varchar has none, so that it may become anything.
func (c *Catalog) otherMeant(op string, left, right uint32, path Path) bool {
	if left != oidVarchar && right != oidVarchar {
		left, right = alike(left, right)
	}
	return slices.ContainsFunc(c.comparing.operators[op], func(o operator) bool {
		return o.oid >= firstUserOID && path.reaches("", o.schema) && c.becomes(left, o.left) && c.becomes(right, o.right)
	})
}

// becomes says whether PostgreSQL may take a value of one type for another of
// its own accord.
func (c *Catalog) becomes(from, to uint32) bool {
	t := c.typesByOID[to]
	if from == 0 || from == to || t == nil || t.Kind == 'p' {
		return true
	}
	if t.Domain() { // found by its base type
		return from == t.Base
	}
	return c.comparing.implicit[cast{from, to}] || c.comparing.implicit[cast{stored(from), to}]
}

// CommonType returns the type by which PostgreSQL compares column op value, for
// op among = < <= >= >: column is the column's type, value that of what it is
// compared with, 0 for an untyped literal or a parameter whose type the client
// did not declare. The values' types differ from it when PostgreSQL converts
// them, and so may their equality. It is known for booleans, bytea, integers,
// numeric, double precision, text and varchar, dates and timestamps, and uuid; false for others,
// for pairs that PostgreSQL would refuse, and when another operator may be meant.
func (c *Catalog) CommonType(opSchema, op string, column, value uint32, path Path) (common uint32, known bool) {
	if _, compares := btreeStrategy[op]; !compares || opSchema != "" && opSchema != "pg_catalog" {
		return 0, false
	}
	l, lok := c.operand(column)
	r, rok := c.operand(value)
	if !lok || !rok || l == 0 || opSchema == "" && !c.certain(op, column, value, path) && c.otherMeant(op, l, r, path) {
		return 0, false
	}
	l, r = alike(l, r)
	l, r = stored(l), stored(r)
	for _, family := range commonFamilies {
		a, b := slices.Index(family, l), slices.Index(family, r)
		if a >= 0 && b >= 0 {
			return family[max(a, b)], true
		}
	}
	return 0, false
}

// commonFamilies are types that PostgreSQL compares with each other, each by
// the one further right.
var commonFamilies = [][]uint32{
	{oidInt2, oidInt4, oidInt8, oidNumeric, oidFloat8},
	{oidDate, oidTimestamp, oidTimestamptz},
	{oidText}, {oidBool}, {oidBytea}, {oidUUID},
}
