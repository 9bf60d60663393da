package twopc

import (
	"fmt"
	"time"
)

// row is what the deciding shard has of a transaction.
type row struct {
	found     bool
	committed bool   // false: a tombstone
	by        string // who decided
	trusted   bool   // by the owner of the table, or who acts for it
}

// verdict is what is to become of a prepared part.
type verdict int

const (
	doubtful verdict = iota // nothing, for now
	commitIt
	rollBackIt
)

// judge says what becomes of a part that a role has prepared, given its row. A
// tombstone is the work of the table's owner: the function decide makes none. A
// decision is believed when the owner of the part made it: anybody may call
// decide, with any name. What is not believed is not taken for a forgery either:
// a wrong guess is half a transaction.
func judge(r row, owner string) (verdict, string) {
	switch {
	case !r.found:
		return doubtful, "there is no decision yet"
	case !r.committed:
		return rollBackIt, ""
	case r.by == owner || r.trusted:
		return commitIt, ""
	}
	return doubtful, fmt.Sprintf("its decision was made by role %q, but it was prepared by role %q", r.by, owner)
}

// part is a prepared part of a transaction, as its shard lists it.
type part struct {
	shard   int
	name    string // of the prepared transaction
	gid     string // empty when the name is none of ours
	decider string // the word of the deciding shard
	owner   string
	age     time.Duration

	verdict verdict
	why     string // it is in doubt; empty when it is not
}

// due reports whether a part is recovery's business. Its coordinator may be at
// work still; then recovery does no harm, but makes it fail.
func (p *part) due(minAge time.Duration, live, abandoned bool) bool {
	return abandoned || !live && p.age >= minAge
}
