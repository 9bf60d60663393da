package proxy

import (
	"slices"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
)

// A SET in a transaction holds on all of its shards: those where it is get it too, and
// those that it comes to get a SET LOCAL behind their BEGIN. That is so for a SET that is
// sent alone, before any savepoint, and of a setting which is like any other.

// travels reports whether the plan is such a SET.
func (s *session) travels(p *router.Plan) bool {
	c := p.Single
	if c == nil || c.Kind != query.KindSet || !p.Exact || len(c.Settings) == 0 || len(s.savepoints) > 0 {
		return false
	}
	for _, st := range c.Settings {
		if st.Default || st.ResetAll || st.Local != c.Settings[0].Local || slices.Contains(wholly[:], st.Name) {
			return false
		}
	}
	return true
}

// goesLocal notes a SET LOCAL, which the shards get that the transaction comes to.
func (s *session) goesLocal(p *router.Plan, sql string) {
	m := s.spread
	m.locals, m.travelling = append(m.locals, sql), p
	for _, set := range p.Single.Settings {
		switch set.Name {
		case crossShardSetting:
			m.crossShard = set.Literal
		case snapshotSetting:
			m.snapshots = set.Literal
		case partialSetting:
			m.partial = set.Literal
		}
	}
}

// localSQL writes a SET LOCAL anew whose text is not at hand; ok is false where the words of the
// client may not stand behind TO, or are more than one command.
func localSQL(p *router.Plan) (sql string, ok bool) {
	st := p.Single.Settings
	if len(st) != 1 || !st[0].Local || !st[0].IsFlat {
		return "", false
	}
	parts := strings.Split(st[0].Name, ".")
	for i := range parts {
		parts[i] = query.QuoteName(parts[i])
	}
	return "SET LOCAL " + strings.Join(parts, ".") + " TO " + st[0].Value, true
}

// setsModes reports whether a command sets modes of the transaction that every shard to which
// it comes can get with BEGIN.
func (s *session) setsModes(p *router.Plan) bool {
	c := p.Single
	return c != nil && c.Kind == query.KindSetTransaction && p.Exact && c.Tx != (query.TxModes{}) &&
		c.Tx.Isolation != "serializable" && len(s.spread.branches) == 0 && len(s.savepoints) == 0
}

// wholly are settings that are decided for the whole of a transaction, or that the
// server tells more of than was set.
var wholly = [...]string{"role", "session_authorization", "client_encoding", "datestyle",
	"transaction_isolation", "transaction_read_only", "transaction_deferrable"}

// travelled notes a SET that the shards of the transaction have executed.
func (s *session) travelled(p *router.Plan, st query.Setting) {
	if !s.spreads() || p == nil || st.Local || !s.travels(p) {
		return
	}
	it := pool.Setting{Name: st.Name, Text: st.Value}
	if st.IsFlat {
		it = literal(st.Name, st.Flat, s.encoding())
	}
	for _, b := range s.spread.branches {
		b.lease.Settings = b.lease.Settings.With(it)
	}
}
