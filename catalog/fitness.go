package catalog

// Fitness says where something may run and what it may leave behind. The
// values are ordered: of several, the worst one counts.
type Fitness uint8

const (
	// Anywhere: reads only and answers alike on every node.
	Anywhere Fitness = iota
	// Local: reads only, but the answer belongs to the node or the session it
	// runs in, or replicas cannot give one (unlogged tables).
	Local
	// Writes: may write, leaves nothing behind in the session.
	Writes
	// Unsafe: may change the session in a way that nobody sees.
	Unsafe
)

// String returns the name of f.
func (f Fitness) String() string {
	switch f {
	case Anywhere:
		return "anywhere"
	case Local:
		return "local"
	case Writes:
		return "writes"
	}
	return "unsafe"
}

// Asks is a set of what a server session remembers and no table holds.
type Asks uint8

const (
	// AsksSequences: currval or lastval.
	AsksSequences Asks = 1 << iota
	// AsksPrepared: the list of the session's prepared statements.
	AsksPrepared
)

// Verdict is what the catalog says of one name.
type Verdict struct {
	Fitness Fitness
	// Why says in a few words why Fitness is not Anywhere.
	Why string
	// Asks says what it reads of its session's own memory, directly or by what it uses.
	Asks Asks
	// Found is false when nothing of that name is in reach: the catalog may be
	// older than the thing. Fitness then holds what must be assumed.
	Found bool
}

// worse returns the worse of two verdicts.
func (v Verdict) worse(o Verdict) Verdict {
	found, asks := v.Found || o.Found, v.Asks|o.Asks
	if o.Fitness > v.Fitness || !v.Found && o.Found {
		v = o
	}
	v.Found, v.Asks = found, asks
	return v
}
