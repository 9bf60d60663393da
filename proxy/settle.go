package proxy

import (
	"slices"
	"strings"
	"unicode/utf8"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// settled reports whether the lease has nothing more to do for now: all
// replies are in, no request is half sent, no transaction is open.
func (s *session) settled() bool {
	return s.lease != nil && !s.fresh && s.owed.empty() && !s.open && !s.skipping && !s.copyIn &&
		s.upload == 0 && s.download == 0
}

// settle gives the lease back when nothing ties the session to it.
func (s *session) settle() error {
	s.endHold()
	if s.tx != 'I' {
		s.setPhase(phaseIdleInTx)
		if s.mode == ModeStatement {
			return wire.Fatal("0A000", "transaction blocks are not allowed in statement pooling").
				WithHint("Use pool mode transaction for this database or user.")
		}
		return s.reapply()
	}
	if s.spreads() {
		return wire.Fatal("08P01", "a transaction over several shards has ended on one of them").
			WithDetail("Shard %s.", s.shard.Name)
	}
	if s.permits != nil {
		s.endPermits()
	}
	s.exclude, s.tries = 0, 0
	s.cancelled, s.timedOut = false, false
	if s.auditAgain.Load() && s.db.loaded() {
		s.suspect |= query.EffectUnknown
	}
	if s.suspect != 0 && s.mode != ModeSession {
		s.startAudit()
		return nil
	}
	switch {
	case s.auditAgain.Load() && s.pinned == "":
		s.pin(pinnedLoading)
	case !s.auditAgain.Load() && s.pinned == pinnedLoading:
		s.pin("")
	}
	if s.setsUnknown && s.pinned == "" {
		s.pin("custom settings of unknown names")
	}
	if s.usesSequences && s.pinned == "" {
		s.pin("sequence values")
	}
	if s.private && s.pinned == "" {
		s.pin(pinnedPrivate)
	}
	switch large := s.unnamedLarge && s.lease.Unnamed == s.unnamedTok; {
	case large && s.pinned == "":
		s.pin(pinnedLarge)
	case !large && s.pinned == pinnedLarge:
		s.pin("")
	}
	if s.pinned != "" || s.mode == ModeSession {
		s.setPhase(phaseIdle)
		s.suspect, s.left = 0, false
		return s.reapply()
	}
	if s.tellParams {
		return s.applySettings() // the client is told what it has again
	}
	fate := pool.Clean
	if s.unsure {
		fate = pool.Dirty
	}
	s.giveBack(fate)
	s.steps++
	return nil
}

// reapply puts back what RESET took away although the client's start-up packet
// asked for it, on a lease that is kept.
func (s *session) reapply() error {
	if s.tx == 'E' || s.lease.Settings.Equal(s.effective()) {
		return nil
	}
	return s.applySettings()
}

// tracked are the reported settings that decide how values look. Where a
// server's own default differs from what the client was told at login, the
// session sets it.
var tracked = [...]struct{ reported, setting string }{
	{"client_encoding", "client_encoding"}, {"DateStyle", "datestyle"}, {"TimeZone", "timezone"},
	{"IntervalStyle", "intervalstyle"}, {"standard_conforming_strings", "standard_conforming_strings"},
}

// effective returns the settings that the lease must have: the session's, and
// what makes its server look as the one that the client was told of.
func (s *session) effective() *pool.Settings {
	want := s.settings
	if s.identityGoes {
		for _, it := range identityOf(want) {
			want = want.Without(it.Name)
		}
	}
	return s.looksLike(want)
}

// looksLike adds to settings what makes the lease's server look as the one that
// the client was told of.
func (s *session) looksLike(want *pool.Settings) *pool.Settings {
	if s.greeted == nil || s.lease.Reported == s.greeted.server {
		return want
	}
	for _, t := range tracked {
		told := s.greeted.values[t.reported]
		if _, set := want.Get(t.setting); !set && told != s.lease.Reported.Values[t.reported] {
			want = want.With(pool.Setting{Name: t.setting, Text: told, Literal: true})
		}
	}
	return want
}

// applySettings sends what makes the lease's settings the session's. The request
// waits for the answer: sent behind them at once it would run also if one of
// them is refused, and that none ever is cannot be known.
func (s *session) applySettings() error {
	want := s.effective()
	sql := want.AppendChange(s.scratch[:0], s.lease.Settings)
	s.scratch = sql
	if len(sql) == 0 {
		s.tellParams = false
		return nil
	}
	s.settlingTo = want
	s.settling = true
	s.settingsErr = nil
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), string(sql)))
	s.lease.Unnamed = 0
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forSettings})
	s.steps++
	return nil
}

// forgetSettings takes back whatever the lease has set, so that what a login's
// settings change is reported.
func (s *session) forgetSettings() {
	var none *pool.Settings
	sql := none.AppendChange(nil, s.lease.Settings)
	if len(sql) == 0 {
		return
	}
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), string(sql)))
	s.lease.Unnamed = 0
	s.lease.Settings = nil
	s.settlingTo, s.settling, s.settingsErr = nil, true, nil
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forReset})
}

// settingsApplied deals with the end of the query that applied the settings.
func (s *session) settingsApplied() error {
	s.settling = false
	if e := s.settingsErr; e != nil {
		s.settingsErr = nil
		return s.settingsRefused(e)
	}
	s.lease.Settings = s.settlingTo
	s.tellParams = false
	if s.readyOwed {
		s.readyOwed = false
		s.answerReady()
	}
	if s.tx == 'I' || s.enlisting {
		s.leaseBase = s.lease.Settings
	}
	return nil
}

// settingsRefused answers the request that needed settings the server refuses.
func (s *session) settingsRefused(e *wire.Error) error {
	if s.tx != 'I' || s.pinned != "" || s.mode == ModeSession || !s.fresh {
		e.Severity = "FATAL"
		return e
	}
	s.giveBack(pool.Clean)
	s.fresh, s.held = false, false
	s.client.Rewind()
	kind, size, ok, err := s.client.Header(s.db.Policy().MessageMax)
	if err != nil || !ok {
		return e
	}
	s.refuse(kind, size, e)
	return nil
}

// replacesIdentity reports whether the request only replaces the role that the
// session has set: it must succeed also when that role is gone.
func (s *session) replacesIdentity() bool {
	if len(s.segment) != 1 || s.segment[0].Single == nil {
		return false
	}
	c := s.segment[0].Single
	if c.Kind == query.KindDiscard {
		return c.Target == "ALL"
	}
	if c.Kind != query.KindSet && c.Kind != query.KindReset || len(c.Settings) != 1 || c.Settings[0].Local {
		return false
	}
	name := c.Settings[0].Name
	return name == "session_authorization" || name == "role" && c.Settings[0].Default
}

// endLocal makes st the session's settings at the end of a transaction, with
// which what was SET LOCAL ends.
func (s *session) endLocal(st *pool.Settings) {
	if s.localMeaning {
		s.localMeaning, s.localConstants, s.setPath = false, false, ""
		s.adoptSettings(st)
		return
	}
	s.setSettings(st)
}

// setSettings makes st the session's settings.
func (s *session) setSettings(st *pool.Settings) {
	if s.settings != st {
		s.adoptSettings(st)
	}
}

func (s *session) adoptSettings(st *pool.Settings) {
	s.settings = st
	s.setScope()
	s.route = routeOf(st)
	it, set := st.Get("search_path")
	if s.searchPath = it.Text; set && it.Text == "" {
		s.searchPath = `""` // of no schema; without a setting it is the server's
	}
	if !it.Literal && it.Text != "" {
		s.searchPath = router.UnknownPath
	}
	if s.places != nil {
		s.role = s.roleIn(st)
	}
	s.nonStandard = s.backslashesEscape(st)
	it, _ = st.Get("default_transaction_isolation")
	s.serializable = it.Text != "" && !strings.Contains(strings.ToLower(it.Text), "rea") // "read ...", "repeatable read"
	s.isolation = ""                                                                     // it is asked for again
	it, _ = st.Get("client_encoding")
	s.unsafeEncoding = isUnsafeEncoding(strings.Trim(it.Text, "' "))
	if s.localMeaning {
		s.searchPath, s.nonStandard, s.unsafeEncoding = router.UnknownPath, true, true
		if s.setPath != "" {
			s.searchPath = s.setPath
		}
	}
	if it, ok := st.Get("application_name"); ok {
		name := strings.Trim(it.Text, "'")
		s.appName.Store(&name)
	}
}

// backslashesEscape reports whether a plain string may have escapes by the settings: what is not surely on, by which PostgreSQL's own
// default is meant where neither the session nor its servers have said otherwise.
func (s *session) backslashesEscape(st *pool.Settings) bool {
	it, set := st.Get("standard_conforming_strings")
	v := strings.Trim(strings.ToLower(it.Text), "' ")
	if !set && s.greeted != nil {
		v = s.greeted.values["standard_conforming_strings"]
	}
	switch v {
	case "on", "true", "1", "yes":
		return false
	case "":
		return set
	}
	return true
}

// roleIn returns the role that settings make the current one, "" when it is not known.
func (s *session) roleIn(st *pool.Settings) string {
	for _, name := range [...]string{"role", "session_authorization"} {
		it, ok := st.Get(name)
		switch {
		case !ok || name == "role" && it.Text == "none":
		case it.Literal:
			return it.Text
		default:
			return ""
		}
	}
	return s.user.ServerUser()
}

// encoding names the client's encoding, "" when it is not known.
func (s *session) encoding() string {
	if it, ok := s.settings.Get("client_encoding"); ok {
		return strings.Trim(it.Text, "' ")
	}
	return s.told("client_encoding")
}

// literal returns a setting with the value, which is in the encoding.
func literal(name, value, encoding string) pool.Setting {
	it := pool.Setting{Name: name, Text: value, Literal: true}
	for i := range len(value) {
		if value[i] >= utf8.RuneSelf {
			it.Encoding = encoding
			break
		}
	}
	return it
}

// isUnsafeEncoding reports whether a byte below 128 may be part of a character
// (PostgreSQL's client-only encodings): such texts cannot be scanned bytewise.
func isUnsafeEncoding(name string) bool {
	n := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(name))
	switch n {
	case "sjis", "shiftjis", "mskanji", "win932", "windows932", "big5", "win950", "windows950", "gbk", "win936",
		"windows936", "uhc", "win949", "windows949", "johab", "gb18030", "shiftjis2004", "shiftx20213":
		return true
	}
	return false
}

// completed deals with the CommandComplete of a statement of the client.
func (s *session) completed(e *expect, tag []byte) {
	s.tallying.rows += rowsOf(tag)
	if e.plan != nil && e.plan.Simple {
		return
	}
	if t := string(tag); t == "DEALLOCATE ALL" || t == "DISCARD ALL" {
		s.forgetStatements()
	}
	s.noteDDL(e.plan, tag)
	if e.plan == nil {
		return
	}
	c := e.command()
	if c == nil {
		return
	}
	switch c.Kind {
	case query.KindSet, query.KindReset, query.KindSelect:
		for _, st := range c.Settings {
			s.applySetting(st, c.Kind == query.KindSet, e.replacedBy(e.done-1) != "")
			s.travelled(e.plan, st)
		}
	case query.KindRollback:
		s.rolledBack()
		s.spreadEnds(c)
	case query.KindCommit, query.KindPrepareTx:
		s.spreadEnds(c)
		switch string(tag) {
		case "COMMIT PREPARED":
			s.catalogChanged, s.catalogMade = true, true // what was in it, nobody knows
		case "COMMIT", "PREPARE TRANSACTION":
			s.committed()
			s.spreadDDL()
		case "ROLLBACK":
			s.rolledBack()
		}
	case query.KindDeallocate:
		if s.private && !c.All {
			s.deallocated(c.Target)
		}
	case query.KindDeclare:
		if s.spread != nil && string(tag) == "DECLARE CURSOR" {
			s.bound([]byte(c.Target), e.plan)
		}
	case query.KindSavepoint:
		s.savepoints = append(s.savepoints, savepoint{c.Target, s.settings, s.lease.Settings})
	case query.KindRollbackTo:
		if i := s.savepoint(c.Target); i >= 0 {
			s.setSettings(s.savepoints[i].settings)
			if !s.spreads() { // where none are changed
				s.lease.Settings = s.savepoints[i].leased
			}
			s.savepoints = s.savepoints[:i+1]
			s.closesBehind(i)
		}
	case query.KindRelease:
		if i := s.savepoint(c.Target); i >= 0 {
			s.savepoints = s.savepoints[:i]
			s.released(i)
		}
	case query.KindDiscard:
		if c.Target == "SEQUENCES" || c.Target == "ALL" {
			s.usesSequences, s.lease.Sequences = false, 0
			s.forgetSequences()
			if c.Target == "ALL" {
				s.setsUnknown, s.unnamedLarge = false, false
			}
			if s.pinned == "sequence values" || c.Target == "ALL" {
				s.pin("")
			}
		}
		if c.Target == "ALL" {
			for _, it := range s.base.All() {
				had, _ := s.settings.Get(it.Name)
				// Behind a query in an open request nothing else applies them.
				s.tellParams = s.tellParams || had != it || s.open
			}
			s.discarded = true
			s.setSettings(s.base)
			s.lease.Settings, s.lease.Unnamed, s.unnamedTok = nil, 0, 0
		}
	}
}

// noteDDL notes what a complete command may have made, changed or dropped. Of a
// text that is not understood its tag tells.
func (s *session) noteDDL(p *router.Plan, tag []byte) {
	verb, _, _ := strings.Cut(string(tag), " ")
	read := p != nil && p.Statement != nil && !p.Statement.Opaque
	switch {
	case read && p.Effects&query.EffectCatalog == 0:
		return
	case !read && verb != "CREATE" && verb != "ALTER" && verb != "DROP" && verb != "SELECT" && verb != "IMPORT":
		return
	}
	s.catalogChanged = true
	// With temporary objects around it is most likely one of these that is
	// dropped or altered; if not, the catalog finds out.
	s.catalogMade = s.catalogMade || verb != "DROP" && verb != "ALTER" || !s.hasTemp
}

// wholeDateStyle replaces a DateStyle of one half (style or order), which keeps
// the other half of what was in force, by the whole that the server reported.
func (s *session) wholeDateStyle() {
	if !s.halfDateStyle() {
		return
	}
	whole := pool.Setting{Name: "datestyle", Text: s.dateStyle, Literal: true}
	s.setSettings(s.settings.With(whole))
	s.lease.Settings = s.lease.Settings.With(whole)
}

func (s *session) halfDateStyle() bool {
	it, ok := s.settings.Get("datestyle")
	return ok && s.dateStyle != "" && it != pool.Setting{Name: "datestyle", Text: s.dateStyle, Literal: true}
}

// committed notes that what is set now outlives a rollback. It may happen in
// the middle of a request, after which an error takes back only what follows.
func (s *session) committed() {
	s.endLocal(s.settings)
	s.txBase, s.savepoints = s.settings, s.savepoints[:0]
	if s.lease != nil {
		s.leaseBase = s.lease.Settings
	}
}

// rolledBack undoes what was set since the last commit.
func (s *session) rolledBack() {
	s.endLocal(s.txBase)
	s.savepoints = s.savepoints[:0]
	if s.lease != nil {
		s.lease.Settings = s.leaseBase
	}
}

func (s *session) savepoint(name string) int {
	for i := len(s.savepoints) - 1; i >= 0; i-- {
		if s.savepoints[i].name == name {
			return i
		}
	}
	return -1
}

// applySetting notes a SET or RESET that the server has executed; with
// restored, what the start-up packet asked for was set again in the same breath.
// command is set for a command that does nothing else.
func (s *session) applySetting(st query.Setting, command, restored bool) {
	if !st.Local {
		s.setPath = ""
	}
	switch {
	case st.Local:
		// Gone with the transaction, which the lease outlives; until then what
		// texts mean is not known where it depends on the setting.
		s.localConstants = s.localConstants || slices.Contains(scoped[1:], st.Name)
		switch st.Name {
		case "search_path":
			s.searchPath, s.setPath = router.UnknownPath, ""
			if command && st.IsFlat && !st.Default && len(s.savepoints) == 0 && s.tx == 'T' {
				// No ROLLBACK TO takes it back before the transaction ends.
				s.setPath = literal(st.Name, st.Flat, s.encoding()).Text
				if s.setPath == "" {
					s.setPath = `""`
				}
				s.searchPath = s.setPath
			}
		case "standard_conforming_strings":
			s.nonStandard = true
		case "client_encoding":
			s.unsafeEncoding = true
		default:
			if !slices.Contains(scoped[:], st.Name) {
				return
			}
		}
		s.localMeaning = true
	case st.ResetAll:
		// RESET ALL leaves the identity alone.
		kept := identityOf(s.settings)
		next := s.base
		for _, it := range kept {
			next = next.With(it)
		}
		s.setSettings(next)
		s.lease.Settings = pool.NewSettings(kept)
		if restored {
			s.lease.Settings = s.effective()
		}
	case st.Default:
		next, leased := s.settings.Without(st.Name), s.lease.Settings.Without(st.Name)
		if st.Name == "session_authorization" {
			next, leased = next.Without("role"), leased.Without("role") // which it ends
		}
		if it, ok := s.base.Get(st.Name); ok {
			next = next.With(it)
		}
		if it, ok := s.looksLike(s.base).Get(st.Name); ok && restored {
			leased = leased.With(it)
		} else if strings.Contains(st.Name, ".") && next != s.settings {
			// A custom setting stays known, and is empty.
			empty := pool.Setting{Name: st.Name, Literal: true}
			next, leased = next.With(empty), leased.With(empty)
		}
		s.setSettings(next)
		s.lease.Settings = leased
	default:
		it := pool.Setting{Name: st.Name, Text: st.Value}
		if st.IsFlat {
			it = literal(st.Name, st.Flat, s.encoding())
		}
		next, leased := s.settings, s.lease.Settings
		if st.Name == "session_authorization" {
			next, leased = next.Without("role"), leased.Without("role")
		}
		s.setSettings(next.With(it))
		s.lease.Settings = leased.With(it)
	}
}

func identityOf(st *pool.Settings) (items []pool.Setting) {
	for _, n := range [...]string{"role", "session_authorization"} {
		if it, ok := st.Get(n); ok {
			items = append(items, it)
		}
	}
	return items
}

// giveBack ends the lease.
func (s *session) giveBack(f pool.Fate) {
	l := s.lease
	if s.deaf != nil {
		f = pool.Dead
	}
	s.lease, s.deaf, s.identityGoes, s.unsure, s.left = nil, nil, false, false, false
	s.leased.Store(nil)
	l.Release(f)
}
