package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A script is a simple query of several commands that do not all run in one place. Its
// commands run one by one, each as if the client had sent it alone: it is put ahead of
// what the client has sent, planned when its turn comes, and answered without the
// ReadyForQuery. What stands outside of a transaction block is one transaction, as
// PostgreSQL has it (exec_simple_query, and the implicit blocks of xact.c).
type script struct {
	text     []byte
	commands []query.Command
	next     int    // the command that runs next
	running  bool   // the one before it is not done
	from     uint64 // of the client's stream is the running command, as long as it is unread
	shift    int    // characters of the text ahead of the running command
	// implicit is set while the open transaction is one that no command has begun.
	implicit bool
	// opens is set while the running command is what makes it a block.
	opens  bool
	failed bool // the client has been told an error: the rest is skipped
	// instead is the tag of the running command, "" for what the server says.
	instead string
	// complete is what the client is told of the last command once its transaction has
	// committed.
	complete []byte
	params   [][]byte // ParameterStatus frames; a server sends them at the end
}

// needsScript reports whether the commands of a simple query must run one by one.
func (s *session) needsScript(n *need, p *router.Plan) bool {
	if s.places == nil || s.mode != ModeTransaction || p.Statement == nil || p.Statement.Opaque || len(p.Statement.Commands) < 2 {
		return false
	}
	switch {
	case n.err != nil:
		return !router.IsLoading(n.err)
	case altersWithin(p.Statement.Commands):
		return true
	case s.tx == 'I':
		return leavesOpen(p)
	case s.tx == 'E', s.namesAny(p):
		return true
	}
	elsewhere := s.lease != nil && n.shard != router.AnyShard && n.shard != s.index
	return (s.spreads() || elsewhere) && controlsTransaction(p) || slices.ContainsFunc(p.Statement.Commands, beginsOrEnds)
}

// altersWithin reports whether one of some commands may change what those behind it mean, as SET search_path does: they were
// planned as if it did not.
func altersWithin(commands []query.Command) bool {
	alters := false
	for i := range commands {
		c := &commands[i]
		if alters && c.Kind != query.KindSet && !beginsOrEnds(*c) {
			return true
		}
		alters = alters || c.Effects&altersMeaning != 0 || c.Kind == query.KindRollbackTo || c.Kind == query.KindDiscard
	}
	return false
}

func beginsOrEnds(c query.Command) bool {
	return c.Kind == query.KindBegin || c.Kind == query.KindCommit || c.Kind == query.KindRollback
}

// leavesOpen reports whether a text begins a transaction that it does not end: what
// comes later may be for other shards.
func leavesOpen(p *router.Plan) (open bool) {
	for i := range p.Statement.Commands {
		if c := &p.Statement.Commands[i]; beginsOrEnds(*c) {
			open = c.Kind == query.KindBegin || c.Chain
		}
	}
	return open
}

// startScript takes the simple query at hand as a script.
func (s *session) startScript(size int) {
	s.forgetPlans()
	s.read = false
	s.commitHold()
	sc := &script{text: bytes.Clone(trimNUL(s.client.Buffered()[5:size]))}
	o := s.textOptions()
	o.MaxBytes = s.db.Policy().ParsedMax
	// The plan's spans need not be those of this text.
	analyse := func() { sc.commands = query.Analyze(string(sc.text), o).Commands }
	if len(sc.text) < router.LongText {
		analyse()
	} else {
		s.task.aside(analyse)
	}
	s.unnamedTok, s.unnamedLarge = 0, false
	s.client.Discard(size)
	s.script = sc
	s.steps++
	if len(sc.commands) == 0 {
		s.tell(wire.Errorf("0A000", "the text is not understood"), false)
	}
}

// runScript goes on with the script. It reports whether the client's buffer may be looked
// at: the running command is there, or data that it has asked for.
func (s *session) runScript() (going bool, err error) {
	sc := s.script
	if sc.running {
		return s.copyIn || sc.unread(s.client), nil
	}
	if s.lease != nil && (!s.owed.empty() || s.settling || s.audit.running || s.readyOwed || s.tx == 'I' && s.pinned == "" && !sc.over()) {
		return false, nil // what is under way ends first, and a lease that is free is given back
	}
	s.steps++
	switch {
	case sc.failed:
		return false, s.endScript()
	case sc.next == len(sc.commands):
		return false, s.commitScript()
	}
	return s.nextCommand()
}

// over reports whether no command is left to run.
func (sc *script) over() bool { return sc.failed || sc.next == len(sc.commands) }

// unread reports whether the running command has not been taken from the client's buffer.
func (sc *script) unread(client *wire.Conn) bool { return client.Consumed() == sc.from }

// closing reports whether the command that runs is the last of the text's own
// transaction: a server commits before it says that such a command is complete.
func (sc *script) closing() bool {
	return sc.implicit && !sc.opens && !sc.failed && sc.next == len(sc.commands)
}

// tagOf returns what the client is told of a command whose server said tag, "" when it
// is just that, and at once.
func (sc *script) tagOf(tag []byte) string {
	if sc.instead == "" && sc.closing() {
		return string(tag)
	}
	return sc.instead
}

// scriptFails notes that the client is told an error.
func (s *session) scriptFails() {
	if s.script != nil {
		s.script.failed = true
	}
}

// nextCommand begins the next command.
func (s *session) nextCommand() (going bool, err error) {
	sc := s.script
	c := &sc.commands[sc.next]
	start := c.Start
	if sc.next == 0 {
		start = 0 // with the hint
	} else {
		sc.shift += s.characters(sc.text[sc.begins(sc.next-1):start])
	}
	sc.next++
	sc.running, sc.instead = true, ""
	text := string(sc.text[start:c.End])
	switch {
	case s.tx == 'I':
		if done, err := s.opensBlock(c, text); done || err != nil {
			return false, err
		}
	case s.tx == 'T' && sc.implicit:
		if text = s.inOwnBlock(c, text); text == "" {
			s.commandDone()
			return false, nil
		}
	}
	s.client.Release()
	s.held = false
	s.client.Insert(wire.AppendQuery(nil, text))
	sc.from = s.client.Consumed()
	if s.recall != nil {
		s.recall.until = 0 // its calls of currval have no values yet
	}
	return true, nil
}

// begins is where a command begins in the text, with what is sent along with it.
func (sc *script) begins(i int) int {
	if i == 0 {
		return 0
	}
	return sc.commands[i].Start
}

// opensBlock deals with a command outside of a transaction: it begins the text's own
// for those that are to run in one. done is set when nothing of it is left to do.
func (s *session) opensBlock(c *query.Command, text string) (done bool, err error) {
	begin := "BEGIN"
	switch c.Kind {
	case query.KindCommit, query.KindRollback, query.KindSavepoint, query.KindRelease, query.KindRollbackTo:
		return false, nil // a server warns of them, or refuses them, as it does here
	case query.KindBegin:
		if s.pinned == "" {
			return false, nil
		}
		begin, done = text, true
	default:
		s.script.implicit = true
	}
	if s.pinned == "" {
		s.tx = 'T'
		s.begun = &begunTx{text: begin, primary: true, serializable: s.serializable}
		return false, nil
	}
	if err := s.beginTied(begin, 0); err != nil || s.lease == nil {
		return true, err
	}
	if done {
		s.db.stats.statements.Add(1)
		s.sayComplete(tagOf(c, s.script.text))
		s.commandDone()
	}
	return done, nil
}

// inOwnBlock deals with a command in the text's own transaction. It returns what is to
// run, "" when the command is done.
func (s *session) inOwnBlock(c *query.Command, text string) string {
	sc := s.script
	refuse := func(what string) string {
		e := errNoBlock(what)
		s.tellsError(e)
		sc.failed = true
		s.client.SetOutput(e.Append(s.client.Output()))
		return ""
	}
	word := "COMMIT"
	switch c.Kind {
	case query.KindSavepoint:
		return refuse("SAVEPOINT")
	case query.KindRelease:
		return refuse("RELEASE SAVEPOINT")
	case query.KindRollbackTo:
		return refuse("ROLLBACK TO SAVEPOINT")
	case query.KindBegin:
		return s.becomesBlock(c, text)
	case query.KindRollback:
		word = "ROLLBACK"
	case query.KindCommit:
	default:
		return text
	}
	if c.Chain {
		return refuse(word + " AND CHAIN")
	}
	sc.implicit = false
	w := wire.Error{Severity: "WARNING", Code: "25P01", Message: "there is no transaction in progress"}
	s.client.SetOutput(w.AppendNotice(s.client.Output()))
	return text
}

// becomesBlock makes the text's own transaction one of a BEGIN, which may say more of it.
func (s *session) becomesBlock(c *query.Command, text string) string {
	sc := s.script
	sc.opens = true
	switch {
	case s.begun != nil:
		s.takeOver(&need{}, c, text)
	case c.Tx != query.TxModes{}:
		sc.instead = tagOf(c, s.script.text)
		return "SET TRANSACTION " + modesSQL(&c.Tx)
	}
	s.sayComplete(tagOf(c, s.script.text))
	return ""
}

// modesSQL is what SET TRANSACTION makes of the modes.
func modesSQL(m *query.TxModes) (sql string) {
	if m.Isolation != "" {
		sql = "ISOLATION LEVEL " + m.Isolation + " "
	}
	switch {
	case m.ReadOnly:
		sql += "READ ONLY "
	case m.ReadWrite:
		sql += "READ WRITE "
	}
	if m.Deferrable {
		sql += "DEFERRABLE"
	}
	return sql
}

// commandDone notes that the running command has its answer.
func (s *session) commandDone() {
	s.tallyEnds()
	sc := s.script
	sc.running = false
	s.steps++
	s.tellTakenBack()
	if sc.opens {
		sc.opens, sc.implicit = false, sc.failed
	}
	if !sc.closing() || sc.complete != nil {
		return
	}
	out := s.client.Output()
	if n := completeAtEnd(out); n > 0 {
		sc.complete = bytes.Clone(out[len(out)-n:])
		s.client.SetOutput(out[:len(out)-n])
	}
}

// completeAtEnd returns the size of the CommandComplete that frames end with, 0 when they
// end with another frame.
func completeAtEnd(frames []byte) int {
	for n := 6; n <= min(len(frames), tagMax); n++ {
		if b := frames[len(frames)-n:]; b[0] == wire.MsgCommandComplete && int(binary.BigEndian.Uint32(b[1:])) == n-1 {
			return n
		}
	}
	return 0
}

// tagMax bounds the size of a CommandComplete, in bytes.
const tagMax = 128

// commitScript ends the text's own transaction, and the script.
func (s *session) commitScript() error {
	sc := s.script
	if !sc.implicit || s.tx == 'I' {
		return s.endScript()
	}
	if s.begun != nil {
		s.begun, s.tx = nil, 'I' // nothing has reached a server
		return s.endScript()
	}
	s.setPhase(phaseActive)
	if err := s.finish(true); err != nil {
		e := wire.AsError(err)
		if e.IsFatal() {
			return e
		}
		sc.failed = true
		s.tellsError(e)
		s.client.SetOutput(e.Append(s.client.Output()))
	}
	return s.endScript()
}

// endScript answers the script's end. What is open of the text's own transaction rolls
// back.
func (s *session) endScript() error {
	sc := s.script
	if sc.implicit && s.tx != 'I' {
		switch {
		case s.lease == nil:
			s.begun, s.tx, s.lost, s.lostErr = nil, 'I', false, nil
		default:
			if err := s.finish(false); err != nil {
				return err
			}
		}
	}
	s.tellTakenBack()
	out := s.client.Output()
	if !sc.failed {
		out = append(out, sc.complete...)
	}
	for _, frame := range sc.params {
		if s.wasTold(frame) {
			out = append(out, frame...)
		}
	}
	s.client.SetOutput(out)
	s.script = nil
	s.answerReady()
	return nil
}

// position moves the position that an error names from the running command to the text.
func (sc *script) position(body []byte) []byte {
	pos, err := strconv.Atoi(wire.Field(body, 'P'))
	if err != nil || sc.shift == 0 {
		return body
	}
	return bytes.Replace(body, []byte("\x00P"+strconv.Itoa(pos)+"\x00"), []byte("\x00P"+strconv.Itoa(pos+sc.shift)+"\x00"), 1)
}
