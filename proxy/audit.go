package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/wire"
)

// An audit asks the server itself what a transaction has left in its session,
// where the statement texts cannot vouch for it: functions may set settings or
// take locks unseen. It runs before the lease would be given back; what cannot
// follow the session to another connection pins it to this one.

// auditAnswer is the state of an audit under way.
type auditAnswer struct {
	running bool
	again   int32 // how often it was canceled
	row     []byte
	err     *wire.Error
}

// auditSQL returns one row with one JSON text, in hexadecimal digits that no
// client_encoding changes. Every name is qualified: the
// session's search_path holds.
const auditSQL = `SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.json_build_object(
'temp', pg_catalog.pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_catalog.pg_depend
 WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = pg_catalog.pg_my_temp_schema()),
'advisory', EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()
  AND NOT (classid = 1936744304 AND objsubid = 2)),
'cursor', EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable),
'prepared', EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql),
'listen', EXISTS (SELECT FROM pg_catalog.pg_listening_channels()),
'role', pg_catalog.current_setting('role'),
'authorization', session_user,
'settings', (SELECT pg_catalog.json_object_agg(lower(name), pg_catalog.current_setting(name)) FROM pg_catalog.pg_settings
 WHERE source = 'session' AND name NOT IN ('transaction_isolation','transaction_read_only','transaction_deferrable')),
'custom', (SELECT pg_catalog.json_object_agg(n, pg_catalog.current_setting(n, true)) FROM (SELECT pg_catalog.unnest('{`

const auditEnd = `}'::text[]) AS n) AS c))::pg_catalog.text, 'UTF8'), 'hex')`

// auditResult is what the row says.
type auditResult struct {
	Temp, Advisory, Cursor, Prepared, Listen bool
	Role, Authorization                      string
	Settings                                 map[string]string
	Custom                                   map[string]*string
}

// startAudit sends the audit query on the idle lease.
func (s *session) startAudit() {
	s.db.stats.audits.Add(1)
	// Custom settings made under names we do not know show in no catalog: the
	// connection is reset before anybody else gets it.
	var names []string
	if s.suspect&query.EffectUnknown != 0 {
		s.unsure = true
		var complete, loaded bool
		names, complete, loaded = s.db.customNames()
		s.setsUnknown = s.setsUnknown || loaded && !complete
		s.auditAgain.Store(!loaded)
	}
	s.suspect, s.left = 0, false
	s.audit = auditAnswer{running: true, again: s.audit.again, row: s.audit.row[:0]}
	var b strings.Builder
	b.WriteString(auditSQL)
	first := true
	for _, name := range s.customNames(names) {
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteString(arrayElement(name))
	}
	b.WriteString(auditEnd)
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), b.String()))
	s.lease.Unnamed = 0
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forAudit})
	s.steps++
}

// customNames adds to the names those of the custom settings that the server
// session is known to have.
func (s *session) customNames(names []string) []string {
	for _, set := range [...]*pool.Settings{s.settings, s.lease.Settings} {
		for _, it := range set.All() {
			if strings.Contains(it.Name, ".") && !slices.Contains(names, it.Name) {
				names = append(names, it.Name)
			}
		}
	}
	return names
}

// arrayElement quotes a name for an array constant within a string constant.
func arrayElement(name string) string {
	q := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
	return `"` + strings.ReplaceAll(q, "'", "''") + `"`
}

// auditDone draws the conclusions of the audit.
func (s *session) auditDone() error {
	s.audit.running = false
	if e := s.audit.err; e != nil && e.Code == "57014" && s.audit.again < 3 {
		// A cancel request of the client's came late. It is asked again.
		s.audit.again++
		s.suspect |= query.EffectUnknown
		s.steps++
		return nil
	} else if e != nil {
		// Not known what is there: the session keeps its connection.
		s.server.opt.Logger.Warn("state audit failed, session keeps its connection", "session", s.id, "error", e)
		s.pin("state unknown")
		return nil
	}
	var r auditResult
	digits, ok := firstColumn(s.audit.row)
	text, err := hex.AppendDecode(nil, digits)
	if !ok || err != nil {
		return s.outOfStep("state audit without its row")
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return s.outOfStep("state audit without its row")
	}
	s.audit.again = 0
	s.adoptState(&r)
	s.pin(r.reasons())
	s.hasTemp = r.Temp
	s.steps++
	return nil
}

// tellsEnd notes that the client is about to hear that its statement is over: what that may have left on the lease is the session's, and gone
// when the connection is. What a rollback takes away it need not be told of.
func (s *session) tellsEnd() {
	left := s.suspect
	if s.tx != 'I' {
		left &= query.EffectAdvisory | query.EffectPrepared | query.EffectUnknown
	}
	s.left = s.left || left != 0
	s.tellsWrites()
}

func (s *session) pin(reason string) {
	if reason != "" && s.pinned == "" {
		s.db.stats.pins.Add(1)
	}
	s.hasTemp = s.hasTemp && reason != ""
	s.pinned = reason
	s.pinnedWhy.Store(&reason)
}

func (r *auditResult) reasons() string {
	var why []string
	for _, c := range []struct {
		is   bool
		name string
	}{
		{r.Temp, "temporary objects"}, {r.Advisory, "advisory locks"}, {r.Cursor, "cursors with hold"},
		{r.Prepared, "statements prepared by SQL"}, {r.Listen, "LISTEN"},
	} {
		if c.is {
			why = append(why, c.name)
		}
	}
	return strings.Join(why, ", ")
}

// adoptState brings what is believed of the settings in line with what the
// server session really has: what differs was changed by the client's statements
// unseen, and is the session's from now on.
func (s *session) adoptState(r *auditResult) {
	believed, mine := s.lease.Settings, s.settings
	found := r.found(s.lease.User(), func(name string) bool {
		_, ok := believed.Get(name)
		return ok
	})
	leased := pool.NewSettings(nil)
	for name, v := range found {
		it, ok := believed.Get(name)
		if !ok || strings.Trim(it.Text, "'") != v {
			it = literal(name, v, "UTF8")
			mine = mine.With(it)
		}
		leased = leased.With(it)
	}
	for _, it := range believed.All() {
		if _, there := found[it.Name]; there {
			continue
		}
		mine = mine.Without(it.Name)
		if was, ok := s.base.Get(it.Name); ok {
			mine = mine.With(was)
		}
	}
	s.distrust(believed, leased)
	s.lease.Settings = leased
	s.setSettings(mine)
	s.txBase, s.leaseBase = s.settings, s.lease.Settings
}

// found returns the settings by name that the session of the login role has;
// known tells which were believed to be there.
func (r *auditResult) found(login string, known func(name string) bool) map[string]string {
	found := maps.Clone(r.Settings)
	if found == nil {
		found = map[string]string{}
	}
	for name, v := range r.Custom {
		if v != nil && (*v != "" || known(name)) {
			found[name] = *v // one that was reset stays, empty
		}
	}
	if r.Role != "" && r.Role != "none" {
		found["role"] = r.Role
	}
	if r.Authorization != login {
		found["session_authorization"] = r.Authorization
	}
	return found
}

// firstColumn returns the first column of a DataRow body; false for NULL or none.
func firstColumn(row []byte) ([]byte, bool) {
	if len(row) < 6 || binary.BigEndian.Uint16(row) < 1 {
		return nil, false
	}
	n := int32(binary.BigEndian.Uint32(row[2:]))
	if n < 0 || int(n) > len(row)-6 {
		return nil, false
	}
	return row[6 : 6+n], true
}
