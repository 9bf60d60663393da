package verify

// RowKind says how a copy of a row differs.
type RowKind string

// The kinds of differences, seen from the source's copy.
const (
	Missing   RowKind = "missing"
	Extra     RowKind = "extra"
	Different RowKind = "different"
)

// RowResult is a row that differs.
type RowResult struct {
	Kind RowKind `json:"kind"`
	// Key names columns and values, "" in a table without a primary key.
	Key string `json:"key,omitempty"`
	// Source and Here are the row on the source and on the shard as PostgreSQL
	// prints a row, cut off behind 1,000 characters; "" where it is missing.
	Source string `json:"source,omitempty"`
	Here   string `json:"here,omitempty"`
}

// ShardResult is how one shard's copy differs from the source's, in rows.
type ShardResult struct {
	Shard     string `json:"shard"`
	Missing   int64  `json:"missing"`
	Extra     int64  `json:"extra"`
	Different int64  `json:"different"`
	// Rows are the first of them, as many as Options.Rows allows.
	Rows []RowResult `json:"rows,omitempty"`
	// Repaired is what Repair did to the shard, nil when nothing.
	Repaired *Repaired `json:"repaired,omitempty"`
}

// Repaired counts rows that Repair wrote.
type Repaired struct {
	Inserted int64 `json:"inserted"`
	Updated  int64 `json:"updated"`
	Deleted  int64 `json:"deleted"`
}

// Differs reports whether there is a difference.
func (r *ShardResult) Differs() bool { return r.Missing+r.Extra+r.Different > 0 }

func (r *ShardResult) add(limit int, row RowResult, n int64) {
	switch row.Kind {
	case Missing:
		r.Missing += n
	case Extra:
		r.Extra += n
	case Different:
		r.Different += n
	}
	if len(r.Rows) < limit {
		r.Rows = append(r.Rows, row)
	}
}

// TableResult is what was found of one reference table.
type TableResult struct {
	Schema string `json:"schema"`
	Name   string `json:"table"`
	// Rows are those of the source's copy when it was compared.
	Rows int64 `json:"rows"`
	// Shards are those that were compared with the source.
	Shards []ShardResult `json:"shards"`
	// Problem says why the table could not be compared, "" when it was.
	Problem string `json:"problem,omitempty"`

	table  *table
	ranges []keyRange // in which the copies differ
}

// Differs reports whether a copy differs.
func (r *TableResult) Differs() bool {
	for i := range r.Shards {
		if r.Shards[i].Differs() {
			return true
		}
	}
	return false
}
