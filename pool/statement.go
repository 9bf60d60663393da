package pool

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
)

// Statement is one prepared statement as servers know it, shared by all
// clients that prepared the same text with the same parameter types under the
// same scope. Identity is by value, never by a hash alone.
type Statement struct {
	// Rest is everything of the Parse body behind the name: the text, its
	// terminator and the parameter types. It must not be changed.
	Rest []byte
	// Name is what servers call it.
	Name string
	key  string
	refs int
}

// Text returns the SQL.
func (s *Statement) Text() []byte {
	for i, b := range s.Rest {
		if b == 0 {
			return s.Rest[:i]
		}
	}
	return s.Rest
}

// NamePrefix begins the name of every statement that the proxy prepares on servers.
const NamePrefix = "_sp_"

// Statements hands out the shared statements of one database. Safe for
// concurrent use. It holds exactly the statements that some client holds.
type Statements struct {
	mu    sync.Mutex
	byKey map[string]*Statement
	bytes int64
	last  uint64
}

// NewStatements returns an empty registry.
func NewStatements() *Statements { return &Statements{byKey: map[string]*Statement{}} }

// Acquire returns the statement of the scope and rest and counts one more
// holder. scope holds what else makes two equal texts different statements:
// the search_path in force. rest is copied when it is new.
func (r *Statements) Acquire(scope string, rest []byte) *Statement {
	var small [256]byte
	key := append(append(append(small[:0], scope...), 0), rest...)
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.byKey[string(key)]
	if !ok {
		r.last++
		k := string(key)
		s = &Statement{Rest: []byte(k[len(scope)+1:]), Name: NamePrefix + strconv.FormatUint(r.last, 36), key: k}
		r.byKey[k] = s
		r.bytes += int64(2 * len(k))
	}
	s.refs++
	return s
}

// Hold counts one more holder of a statement that somebody holds.
func (r *Statements) Hold(s *Statement) {
	r.mu.Lock()
	s.refs++
	r.mu.Unlock()
}

// Release ends one holder's use.
func (r *Statements) Release(s *Statement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.refs--; s.refs == 0 {
		delete(r.byKey, s.key)
		r.bytes -= int64(2 * len(s.key))
	}
}

// StatementStat describes one statement.
type StatementStat struct {
	Name, Text string
	Holders    int   // clients that have it prepared
	Bytes      int64 // it takes here
}

// List describes all statements, in the order in which they came to be.
func (r *Statements) List() []StatementStat {
	r.mu.Lock()
	all := make([]*Statement, 0, len(r.byKey))
	holders := make(map[*Statement]int, len(r.byKey))
	for _, s := range r.byKey {
		all = append(all, s)
		holders[s] = s.refs
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *Statement) int { // names are numbers to the base of 36
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	stats := make([]StatementStat, len(all))
	for i, s := range all {
		stats[i] = StatementStat{Name: s.Name, Text: string(s.Text()), Holders: holders[s], Bytes: int64(2 * len(s.key))}
	}
	return stats
}

// Len returns the number of statements and the bytes they take.
func (r *Statements) Len() (count int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byKey), r.bytes
}
