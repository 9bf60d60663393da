package proxy

import (
	"context"
	"slices"
	"strings"
	"time"

	"shardproxy/twopc"
	"shardproxy/wire"
)

// What is read on several shards is of one moment as far as transactions over several shards go:
// each of them is seen on all shards or on none. Snapshots are taken in a window of the fence: a
// query's own under READ COMMITTED (see scattering.start), the transaction's under REPEATABLE READ,
// when it comes to a shard.

// Snapshots says what queries over several shards see of transactions over several shards.
type Snapshots uint8

// The ways to see them.
const (
	// SnapshotStatement and SnapshotTransaction: whole or not at all, by a statement under READ
	// COMMITTED, by a transaction under REPEATABLE READ, whichever is said.
	SnapshotStatement Snapshots = iota
	SnapshotTransaction
	// SnapshotOff: each shard's part as it is when the shard is asked.
	SnapshotOff
)

// snapshotSetting is the setting of a session that overrides the configuration.
const snapshotSetting = ownPrefix + "snapshot"

// snapshotNamed returns what a setting's value, in quotes or not, stands for.
func snapshotNamed(value string) (mode Snapshots, ok bool) {
	switch strings.Trim(strings.ToLower(value), "'\" ") {
	case "statement":
		return SnapshotStatement, true
	case "transaction":
		return SnapshotTransaction, true
	case "off":
		return SnapshotOff, true
	}
	return SnapshotStatement, false // set where nobody could check it, as in a function
}

// ownSetting is what the session has set one of the program's own settings to, "" for nothing, which
// RESET leaves: the configuration counts then.
func (s *session) ownSetting(name string) string {
	it, _ := s.settings.Get(name)
	return strings.Trim(it.Text, "' ")
}

// whole reports whether transactions over several shards are to be seen whole.
func (s *session) whole() bool {
	mode := s.snapshots
	if text := s.ownSetting(snapshotSetting); text != "" {
		mode, _ = snapshotNamed(text)
	}
	if s.spread != nil && s.spread.snapshots != "" {
		mode, _ = snapshotNamed(s.spread.snapshots)
	}
	return mode != SnapshotOff && s.db.Fence != nil
}

// Fence opens windows in which transactions over several shards are whole; the program's
// cluster does, by twopc.Fence.
type Fence interface {
	// Enter waits for a window on shards. The error is a *wire.Error for the client, or ctx's.
	Enter(ctx context.Context, shards []int) (Window, error)
}

// Window is an open window: see twopc.Window.
type Window interface {
	Address(shard int) string
	Moved(shard int)
	Unseen(ctx context.Context, shard int, snapshot string) (bool, error)
	Leave() error
}

// The isolation levels that matter here, as a server names them.
const (
	readCommitted  = "read committed"
	repeatableRead = "repeatable read"
	serializable   = "serializable"
)

// level returns the isolation level of the open transaction, which its server is asked for when
// neither BEGIN nor a setting has said it: a role or a database may have another default.
func (s *session) level() (string, *wire.Error) {
	m := s.spread
	if m.isolation == "" {
		m.isolation = s.isolation
	}
	if m.isolation != "" {
		return m.isolation, nil
	}
	var e *wire.Error
	if s.isolation, e = s.shown("transaction_isolation"); e != nil {
		return "", e
	}
	m.isolation = s.isolation
	return m.isolation, nil
}

// shown asks the lease for a setting.
func (s *session) shown(setting string) (string, *wire.Error) {
	if e := s.awaitReplies(); e != nil {
		return "", e
	}
	a, err := s.runOn(s.lease, wire.AppendQuery(nil, "SHOW "+setting), answerMax)
	if err != nil {
		return "", s.allFailed(s.lease, a, err)
	}
	_, rows, _ := cutRows(a.Frames)
	if len(rows) != 1 || len(rowFields(rows[0][5:])) != 1 {
		return "", wire.Errorf("XX000", "a server does not tell the isolation level").WithDetail("Node %s.", s.lease.Address())
	}
	return string(rowFields(rows[0][5:])[0]), nil
}

// fixed reports whether the transaction has one snapshot on each shard, all of which are to see
// transactions over several shards whole. It is refused where it is SERIALIZABLE.
func (s *session) fixed() (bool, *wire.Error) {
	level, e := s.level()
	if e == nil && level == serializable {
		e = errSerializable()
	}
	return s.whole() && level != readCommitted && level != "read uncommitted", e
}

// mayBeOne refuses a statement of several shards that is a transaction of its own where these are
// SERIALIZABLE by default, as a role or a database may say.
func (s *session) mayBeOne() *wire.Error {
	if s.isolation == "" {
		var e *wire.Error
		if s.isolation, e = s.shown("default_transaction_isolation"); e != nil {
			return e
		}
	}
	if s.isolation == serializable {
		return errSerializable()
	}
	return nil
}

func errSerializable() *wire.Error {
	return wire.Errorf("0A000", "this statement runs on several shards, and SERIALIZABLE holds on one server only").
		WithHint("SET default_transaction_isolation to 'repeatable read', or begin a transaction of another isolation level.")
}

// join begins the transaction on more shards. Under REPEATABLE READ their snapshots see the
// same transactions over several shards as those of its other shards do: 40001 when one has been
// committed since these were taken.
func (s *session) join(shards []int) *wire.Error {
	fixed, e := s.fixed()
	if e != nil {
		return e
	}
	anew := fixed && !s.acted && len(s.spread.branches) == 0
	if e := s.marksParts(anew); e != nil {
		return e
	}
	if !fixed {
		return s.beginOnAll(shards)
	}
	if e := s.awaitReplies(); e != nil {
		return e
	}
	before := s.partShards()
	all := slices.Concat(before, shards)
	slices.Sort(all)
	w, e := s.enter(all)
	if e != nil {
		return e
	}
	if anew {
		e = s.beginAnew()
	}
	if e == nil {
		e = s.beginOnAll(shards)
	}
	if e == nil {
		e = s.awaitReplies()
	}
	if e == nil {
		e = s.seesAlike(w, before)
	}
	if e == nil {
		e = s.sameServers(w, all)
	}
	var left error
	s.task.aside(func() { left = w.Leave() })
	if e == nil && left != nil {
		e = wire.AsError(left)
	}
	return e
}

// beginAnew begins the transaction once more on its only shard, where nothing has run: a statement
// may have been prepared, which takes a snapshot.
func (s *session) beginAnew() *wire.Error {
	a, err := s.runOn(s.lease, wire.AppendQuery(nil, "ROLLBACK; "+s.beginSQL()), 0)
	if err != nil {
		return s.allFailed(s.lease, a, err)
	}
	return nil
}

// beginOnAll begins the transaction on shards, at once: the last becomes the lease. Its replies may be
// owed then, unless there is an error.
func (s *session) beginOnAll(shards []int) *wire.Error {
	var refused *wire.Error
	for _, i := range shards {
		// What is more than a BEGIN ahead, such as settings, is waited for.
		if s.settling {
			refused = s.awaitReplies()
		}
		if refused == nil {
			refused = s.sends()
		}
		if refused == nil {
			refused = s.beginOn(i)
		}
		if refused != nil {
			break
		}
	}
	if refused != nil && (refused.IsFatal() || s.spread == nil) { // a connection was lost, and the transaction with it
		return refused
	}
	e := s.awaitBegun()
	if e == nil && refused != nil {
		e = s.awaitReplies()
	}
	if refused == nil || e != nil && e.IsFatal() {
		return e
	}
	return refused
}

// sends flushes what both sides are to have, by which the lease may turn out to be lost.
func (s *session) sends() *wire.Error {
	at := s.index
	if err := s.flush(); err != nil {
		return wire.AsError(err)
	}
	if s.lease == nil {
		return s.lostOn(at)
	}
	return nil
}

// awaitBegun waits until the transaction is begun on its parked connections.
func (s *session) awaitBegun() (first *wire.Error) {
	for i := range s.spread.branches {
		if s.spread.branches[i].owed.empty() {
			continue
		}
		if e := s.sends(); e != nil {
			return e
		}
		s.swap(i)
		if e := s.awaitReplies(); first == nil {
			first = e
		} else if e != nil && e.IsFatal() {
			first = e
		}
		if first != nil && first.IsFatal() || s.lease == nil {
			return first // with a connection the transaction is lost
		}
		s.swap(i)
	}
	return first
}

// partShards returns the shards of the open transaction.
func (s *session) partShards() (all []int) {
	all = append(all, s.index)
	for _, b := range s.spread.branches {
		all = append(all, b.index)
	}
	return all
}

// enter waits for a window, unless the client wants no more.
func (s *session) enter(shards []int) (w Window, e *wire.Error) {
	s.task.aside(func() {
		ctx, cancel := context.WithCancelCause(s.server.ctx)
		defer cancel(nil)
		watch := &watcher{s: s, giveUp: func() { cancel(errUserCancel()) }}
		defer watch.begin()()
		var err error
		if w, err = s.db.Fence.Enter(ctx, shards); err != nil {
			e = wire.AsError(err)
		}
	})
	return w, e
}

func errUserCancel() *wire.Error {
	return wire.Errorf("57014", "canceling statement due to user request")
}

// snapshotSQL fixes the transaction's snapshot, if that is not done, and gives it.
const snapshotSQL = "SELECT pg_catalog.pg_current_snapshot()"

// seesAlike checks that no transaction over several shards has been committed behind the
// snapshots of the transaction's shards.
func (s *session) seesAlike(w Window, shards []int) *wire.Error {
	for _, i := range shards {
		l, _ := s.partOn(i)
		a, err := s.runOn(l, wire.AppendQuery(nil, snapshotSQL), answerMax)
		if err != nil {
			return s.allFailed(l, a, err)
		}
		_, rows, _ := cutRows(a.Frames)
		if len(rows) != 1 || len(rowFields(rows[0][5:])) != 1 {
			return wire.Errorf("XX000", "a server does not tell the snapshot").WithDetail("Node %s.", l.Address())
		}
		unseen := time.Since(s.spread.began) > twopc.MaxSnapshotAge
		if !unseen {
			s.task.aside(func() { unseen, err = w.Unseen(s.server.ctx, i, string(rowFields(rows[0][5:])[0])) })
		}
		switch {
		case err != nil:
			return wire.AsError(err)
		case unseen:
			return wire.Errorf("40001", "could not serialize access: a transaction over several shards was committed behind this one's snapshot").
				WithDetail("The transaction came to another shard, where it cannot see what it saw on shard %s.", s.db.Shards[i].Name).
				WithHint("Try the transaction again. One whose first statement needs all of its shards sees them at one moment.")
		}
	}
	return nil
}

// sameServers checks that the fence was held on the servers that the transaction reads.
func (s *session) sameServers(w Window, shards []int) *wire.Error {
	for _, i := range shards {
		if l, _ := s.partOn(i); l.Address() != w.Address(i) {
			w.Moved(i)
			return errElsewhere(s.db.Shards[i].Name)
		}
	}
	return nil
}

func errElsewhere(shard string) *wire.Error {
	return wire.Errorf("40001", "the shards could not be read at one moment: the primary of a shard has changed").
		WithDetail("Shard %s.", shard).WithHint("Try it again.")
}
