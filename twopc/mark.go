package twopc

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// markClass is the first key of the advisory locks that transactions over several
// shards take, "sp_t" in ASCII. The second is the transaction's mark, or 0 of one
// that is being committed.
const markClass = 0x73705F74

// Mark says which parts, on different shards, are one transaction: each holds a
// shared advisory lock of that key from its beginning to its end, prepared or not,
// which every proxy sees in pg_locks. 0 is none. It is as good as unique: two
// transactions that are open at the same time share one with probability 2^-32.
type Mark uint32

// NewMark returns a mark, never 0.
func NewMark() Mark {
	for {
		if m := Mark(rand.Uint32()); m != 0 {
			return m
		}
	}
}

// Lock is the SQL expression that takes the lock of the mark until the end of the
// transaction, or of the savepoint behind which it is taken. It never waits, unless
// somebody else has taken the same key exclusively.
func (m Mark) Lock() string {
	return "pg_catalog.pg_advisory_xact_lock_shared(" + strconv.Itoa(markClass) + ", " + strconv.Itoa(int(int32(m))) + ")"
}

// String is the mark as logs and errors name the transaction.
func (m Mark) String() string { return fmt.Sprintf("%08x", uint32(m)) }

// committing is held, as commitsLock takes it, by what is being committed on several
// shards: nothing that runs there may be cancelled.
const (
	committing  Mark = 0
	commitsLock      = "pg_catalog.pg_advisory_xact_lock_shared(1936744308, 0)"
)
