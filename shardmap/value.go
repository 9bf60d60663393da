package shardmap

import (
	"fmt"
	"strings"
)

// Value is a key's value as it was sent. It is not NULL.
type Value struct {
	// Type is what PostgreSQL reads Data as: the parameter's type, which may be
	// another than the column's.
	Type KeyType
	// Data is in Format; the Value borrows it.
	Data []byte
	// Format is the protocol's format code.
	Format Format
}

// HashFor returns the value's hash for a key of type k, as KeyType.Hash does. A
// value of a type that does not colocate with k is ErrUnproven: PostgreSQL
// would convert one of the two.
func (v Value) HashFor(k KeyType) (uint64, error) {
	if !v.Type.Colocates(k) {
		return 0, ErrUnproven
	}
	return v.Type.Hash(v.Data, v.Format)
}

// sortKey appends the value's sort key if it can be compared with keys of type k.
func (v Value) sortKey(dst []byte, k KeyType) ([]byte, error) {
	if !v.Type.Colocates(k) {
		return dst, ErrUnproven
	}
	return v.Type.AppendSortKey(dst, v.Data, v.Format)
}

// UnplacedError says that a list or range placement has no shard for a value
// and no default.
type UnplacedError struct {
	// Type is the key's.
	Type KeyType
	// Text is the value if it came as text, else empty.
	Text string
}

func (e *UnplacedError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("no shard is named for this key of type %s, and no default", e.Type)
	}
	return fmt.Sprintf("no shard is named for the key \"%s\" of type %s, and no default", e.Text, e.Type)
}

// unplaced makes the error for a value.
func unplaced(k KeyType, v Value) error {
	e := &UnplacedError{Type: k}
	if v.Format == TextFormat {
		e.Text = string(v.Data)
	}
	return e
}

// PlacementError says everything that is wrong with a list or range placement.
type PlacementError struct {
	// Problems are whole clauses, in the order of the entries.
	Problems []string
}

func (e *PlacementError) Error() string { return "placement: " + strings.Join(e.Problems, "; ") }

// placementReader checks the names and values of a placement and collects what
// is wrong.
type placementReader struct {
	key      KeyType
	shards   []string
	problems []string
}

func newPlacementReader(k KeyType, shards []string) *placementReader {
	r := &placementReader{key: k, shards: shards}
	if k < Int2 || k > Numeric {
		r.add("%s", k)
	}
	return r
}

func (r *placementReader) add(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// shard returns the index of a shard's name.
func (r *placementReader) shard(name string) int {
	for i, s := range r.shards {
		if s == name {
			return i
		}
	}
	r.add("%q is no shard", name)
	return noShard
}

// defaultShard returns the index of the default's name, which may be missing.
func (r *placementReader) defaultShard(name string) int {
	if name == "" {
		return noShard
	}
	return r.shard(name)
}

// value returns the sort key of a value of the configuration.
func (r *placementReader) value(text string) (string, bool) {
	key, err := r.key.AppendSortKey(nil, []byte(text), TextFormat)
	if err == ErrUnproven {
		r.add("value %q does not mean the same %s everywhere: write it in the form that PostgreSQL prints with DateStyle ISO, "+
			"with an offset if it has a time zone", text, r.key)
	} else if err != nil {
		r.add("%v", err)
	}
	return string(key), err == nil
}

// err returns the problems, if any.
func (r *placementReader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return &PlacementError{r.problems}
}

// noShard is the index of no shard.
const noShard = -1
