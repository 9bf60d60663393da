package ddl

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Entry is a statement of the journal.
type Entry struct {
	ID        int64  `json:"id"`
	Statement string `json:"statement"`
	Role      string `json:"role"`
	// SearchPath is that with which its names were found.
	SearchPath string `json:"search_path"`
	// State is "running" while a proxy, or Resume, works on it; "interrupted" when none
	// does any more, though none has said what came of it; "unfinished", "done", "undone"
	// when it failed before it changed anything, or "abandoned".
	State string    `json:"state"`
	Began time.Time `json:"began"`
	// Ended is nil as long as something is left to be done.
	Ended *time.Time `json:"ended"`
	// Shards are those where it runs, in the order in which it does.
	Shards []ShardState `json:"shards"`

	st                          Statement
	namespace, object, relation string
}

// ShardState is how far a statement has come on a shard.
type ShardState struct {
	Shard string `json:"shard"`
	// State is "pending", "running", "done", "failed" or "unknown".
	State string `json:"state"`
	// Error is why it failed there.
	Error   string    `json:"error,omitempty"`
	Changed time.Time `json:"changed"`

	before  uint32
	invalid []uint32
}

// List returns the statements that have not ended, or all that are still known, the
// oldest first.
func (j *Journal) List(ctx context.Context, all bool) ([]Entry, error) {
	home, err := j.connect(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer hangUp(home)
	return list(ctx, home, "$1 OR d.ended_at IS NULL", all)
}

const listSQL = `SELECT d.id, d.statement, d.role, d.search_path, d.settings, d.namespace, d.object, d.relation,
	CASE WHEN d.state = 'running' AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1936224868
		AND l.objid = (d.id & 4294967295)::oid AND l.objsubid = 2 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
		THEN 'interrupted' ELSE d.state END,
	(extract(epoch FROM d.began_at) * 1000000)::bigint, (extract(epoch FROM d.ended_at) * 1000000)::bigint,
	s.shard, s.state, coalesce(s.error, ''), coalesce(s.before, 0), s.invalid, (extract(epoch FROM s.changed_at) * 1000000)::bigint
	FROM shardproxy.ddl d JOIN shardproxy.ddl_shard s USING (id) WHERE `

func list(ctx context.Context, conn *pgx.Conn, where string, arg any) (out []Entry, err error) {
	rows, err := conn.Query(ctx, listSQL+where+" ORDER BY d.id, s.position", pgx.QueryExecModeExec, arg)
	if err != nil {
		return nil, err
	}
	out = []Entry{}
	var e Entry
	var s ShardState
	var began, changed int64
	var ended *int64
	_, err = pgx.ForEachRow(rows, []any{&e.ID, &e.Statement, &e.Role, &e.SearchPath, &e.st.Settings, &e.namespace, &e.object, &e.relation, &e.State,
		&began, &ended, &s.Shard, &s.State, &s.Error, &s.before, &s.invalid, &changed}, func() error {
		if len(out) == 0 || out[len(out)-1].ID != e.ID {
			one := e
			one.st.Text, one.st.Role, one.st.SearchPath = e.Statement, e.Role, e.SearchPath
			one.Began = time.UnixMicro(began).UTC()
			if ended != nil {
				t := time.UnixMicro(*ended).UTC()
				one.Ended = &t
			}
			e.st.Settings = nil
			out = append(out, one)
		}
		one := s
		one.Changed = time.UnixMicro(changed).UTC()
		s.invalid = nil
		last := &out[len(out)-1]
		last.Shards = append(last.Shards, one)
		return nil
	})
	return out, err
}
