package rebalance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// pieceSteps and pieceBytes bound what is handed over at once, and so what is held in memory, but for a row that is longer.
	pieceSteps = 1000
	pieceBytes = 4 << 20
	// streamIdle is how long reading waits while nothing is to be handed over, streamBusy while something is.
	streamIdle = 100 * time.Millisecond
	streamBusy = 2 * time.Millisecond
	// statusEvery is how often the source is told how far the target is; statusWaited while somebody waits for a position.
	statusEvery  = time.Second
	statusWaited = 20 * time.Millisecond
)

// streamRow are the values of a row as texts, nil for NULL. unsent are the places whose value the source has left out,
// because an UPDATE did not change it and it is stored apart (TOAST).
type streamRow struct {
	values [][]byte
	unsent []int
}

// streamChange is a change of one row as the source tells it.
type streamChange struct {
	kind byte       // 'I', 'U', 'D'
	was  byte       // what old is: 0 nothing, 'K' the identity, 'O' the whole row
	old  *streamRow // by its places in the whole row
	row  *streamRow
	xid  uint32
}

// streamPiece is part of the stream, in its order: whole transactions of the source and, when open is set, the beginning of one more.
type streamPiece struct {
	steps        []applyStep
	transactions int64
	bytes        int
	open         bool
	end          LSN // behind the last whole transaction
}

// streamRelation is a table as the stream describes it.
type streamRelation struct {
	facts *carryFacts
	full  bool // REPLICA IDENTITY FULL
}

// streamer reads the changes of the source. It is used by one goroutine.
type streamer struct {
	*Carry
	conn      *pgconn.PgConn
	facts     []*carryFacts
	relations map[uint32]*streamRelation
	start     LSN // what lies before was on the target when reading began
	handed    LSN // the end of the last piece
	out       chan<- *streamPiece
	piece     *streamPiece
	inside    bool // between Begin and Commit
	skip      bool // of a transaction that is on the target
	xid       uint32
	changed   bool // the transaction has steps
	told      time.Time
}

// read reads until the context ends or something fails.
func (s *streamer) read(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Conn().SetReadDeadline(time.Now()) }) //nolint:errcheck // a closed connection ends reading too
	defer stop()
	s.handed, s.piece = s.start, &streamPiece{end: s.start}
	for {
		if err := s.tell(false); err != nil {
			return err
		}
		if err := s.hand(ctx); err != nil {
			return err
		}
		wait := streamIdle
		if s.pending() || s.position.waiters.Load() > 0 {
			wait = streamBusy
		}
		if err := s.receive(ctx, wait); err != nil {
			return err
		}
	}
}

// receive takes all that has come, and waits for the first of it.
func (s *streamer) receive(ctx context.Context, wait time.Duration) error {
	if err := s.conn.Conn().SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	for range pieceSteps {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Without a context: to watch one for each message costs more than the message.
		message, err := s.conn.ReceiveMessage(context.Background())
		switch {
		case carryTimeout(err): // what has come of a message is kept
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("source: %w", err)
		}
		if err := s.take(message); err != nil {
			return err
		}
		if s.full() || s.conn.Frontend().ReadBufferLen() == 0 {
			return nil
		}
	}
	return nil
}

func carryTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (s *streamer) full() bool {
	return len(s.piece.steps) >= pieceSteps || s.piece.bytes >= pieceBytes
}
func (s *streamer) pending() bool { return len(s.piece.steps) > 0 || s.piece.end > s.handed }

// hand hands the piece over: when the other side waits for one, or when it is full. Until then it grows, so that more is done at once
// the further behind the target is.
func (s *streamer) hand(ctx context.Context) error {
	for s.pending() {
		s.piece.open = s.inside && s.changed
		if !s.full() {
			if s.piece.open { // the rest may not come for long: nothing is gained by beginning
				return nil
			}
			select {
			case s.out <- s.piece:
			default:
				return nil
			}
			break
		}
		timer := time.NewTimer(statusEvery)
		select {
		case s.out <- s.piece:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			if err := s.tell(false); err != nil { // or the source takes us for dead
				return err
			}
			continue
		}
		break
	}
	if s.pending() {
		s.handed = s.piece.end
		s.piece = &streamPiece{end: s.handed}
	}
	return nil
}

// tell tells the source how far the target is, so that it can let go of its WAL: only what the target has committed durably. It asks for an
// answer, which moves the position when nothing happens.
func (s *streamer) tell(now bool) error {
	every := statusEvery
	if s.position.waiters.Load() > 0 {
		every = statusWaited
	}
	if !now && time.Since(s.told) < every {
		return nil
	}
	s.told = time.Now()
	stored := LSN(s.position.stored.Load())
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: max(LSN(s.position.received.Load()), stored), WALFlushPosition: stored, WALApplyPosition: stored, ReplyRequested: !now,
	})
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return nil
}

// take folds a message into the piece.
func (s *streamer) take(message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		if len(m.Data) == 0 {
			return errStreamMalformed
		}
		switch m.Data[0] {
		case pglogrepl.PrimaryKeepaliveMessageByteID:
			alive, err := pglogrepl.ParsePrimaryKeepaliveMessage(m.Data[1:])
			if err != nil {
				return err
			}
			s.position.setReceived(alive.ServerWALEnd)
			if !s.inside { // all that has committed before has been sent
				s.piece.end = max(s.piece.end, alive.ServerWALEnd)
			}
			if alive.ReplyRequested {
				return s.tell(true)
			}
		case pglogrepl.XLogDataByteID:
			data, err := pglogrepl.ParseXLogData(m.Data[1:])
			if err != nil {
				return err
			}
			return s.decode(data.WALData)
		}
	case *pgproto3.ErrorResponse:
		return s.lost(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CopyDone:
		return fmt.Errorf("source: the stream has ended: %w", net.ErrClosed)
	}
	return nil
}

// lost tells the loss of what the slot holds from other errors of the source.
func (s *streamer) lost(err *pgconn.PgError) error {
	switch err.Code {
	case "42704", "58P01", "55000": // no such slot or publication; WAL is gone; the slot is invalid
		return slotLost("the source cannot go on streaming", err)
	}
	return fmt.Errorf("source: %w", carryRefusal(err, "", "", "stream"))
}

func slotLost(reason string, err error) error {
	return &CarryError{Cause: SlotLost, Reason: reason, Hint: "end the move, and begin it anew: changes are missing", Err: err}
}

var errStreamMalformed = errors.New("a message of the replication stream is malformed")

// decode folds a message of pgoutput.
func (s *streamer) decode(data []byte) error {
	if len(data) == 0 {
		return errStreamMalformed
	}
	switch kind := pglogrepl.MessageType(data[0]); kind {
	case pglogrepl.MessageTypeBegin:
		var m pglogrepl.BeginMessage
		if err := m.Decode(data[1:]); err != nil {
			return err
		}
		s.inside, s.changed, s.xid = true, false, m.Xid
		s.skip = m.FinalLSN < s.start
	case pglogrepl.MessageTypeCommit:
		var m pglogrepl.CommitMessage
		if err := m.Decode(data[1:]); err != nil {
			return err
		}
		if s.changed {
			s.piece.transactions++
		}
		s.inside, s.skip, s.changed = false, false, false
		s.position.setReceived(m.TransactionEndLSN)
		s.piece.end = max(s.piece.end, m.TransactionEndLSN)
	case pglogrepl.MessageTypeRelation:
		return s.relation(data)
	case pglogrepl.MessageTypeInsert, pglogrepl.MessageTypeUpdate, pglogrepl.MessageTypeDelete:
		if !s.skip {
			return s.change(byte(kind), data[1:])
		}
	case pglogrepl.MessageTypeTruncate:
		if !s.skip {
			return s.truncated(data)
		}
	case pglogrepl.MessageTypeOrigin, pglogrepl.MessageTypeType:
	default:
		return fmt.Errorf("%w: of kind %q", errStreamMalformed, data[0])
	}
	return nil
}

// relation compares a table as it was when the change was made with what the move was begun with.
func (s *streamer) relation(data []byte) error {
	parsed, err := pglogrepl.Parse(data)
	if err != nil {
		return err
	}
	m := parsed.(*pglogrepl.RelationMessage)
	at := slices.IndexFunc(s.facts, func(f *carryFacts) bool { return f.oid == m.RelationID })
	if at < 0 {
		return &CarryError{Cause: Redefined, Table: m.Namespace + "." + m.RelationName, Reason: "it is published, and is no table of the move", Hint: "end the move, and begin it anew"}
	}
	f := s.facts[at]
	t := f.table
	if m.Namespace != t.Schema || m.RelationName != t.Name {
		return carryRedefined(t, "it is now "+m.Namespace+"."+m.RelationName)
	}
	if m.ReplicaIdentity != 'd' && m.ReplicaIdentity != 'f' {
		return carryRedefined(t, "its replica identity is no longer its primary key")
	}
	if len(m.Columns) != len(f.columns) {
		return carryRedefined(t, fmt.Sprintf("it has %d stored columns, not %d", len(m.Columns), len(f.columns)))
	}
	for i, c := range m.Columns {
		want := f.columns[i]
		if c.Name != want.name || c.DataType != want.kind || c.TypeModifier != want.modifier {
			return carryRedefined(t, "its column "+want.name+" "+want.sql+" was or is another, or of another type")
		}
		if m.ReplicaIdentity == 'd' && (c.Flags&1 != 0) != slices.Contains(t.Identity, i) {
			return carryRedefined(t, "its primary key was or is another")
		}
	}
	s.relations[m.RelationID] = &streamRelation{facts: f, full: m.ReplicaIdentity == 'f'}
	return nil
}

func (s *streamer) truncated(data []byte) error {
	parsed, err := pglogrepl.Parse(data)
	if err != nil {
		return err
	}
	var names []string
	for _, id := range parsed.(*pglogrepl.TruncateMessage).RelationIDs {
		if r := s.relations[id]; r != nil {
			names = append(names, r.facts.table.String())
		}
	}
	return &CarryError{
		Cause: Truncated, Table: strings.Join(names, ", "), Reason: "it was truncated on the source: its slots cannot be told apart any more",
		Hint: "end the move, and begin it anew",
	}
}

// change decodes a change and adds what is to be done for it.
func (s *streamer) change(kind byte, data []byte) error {
	if len(data) < 5 {
		return errStreamMalformed
	}
	r := s.relations[binary.BigEndian.Uint32(data)]
	if r == nil {
		return fmt.Errorf("%w: a change of a table that was not described", errStreamMalformed)
	}
	c := streamChange{kind: kind, xid: s.xid}
	// The message is gone with the next one: its values are kept in one copy.
	for rest := bytes.Clone(data[4:]); len(rest) > 0; {
		tuple := rest[0]
		row, after, err := streamTuple(rest[1:], len(r.facts.columns))
		if err != nil {
			return err
		}
		switch tuple {
		case 'K', 'O':
			c.was, c.old = tuple, row
		case 'N':
			c.row = row
		default:
			return errStreamMalformed
		}
		rest = after
	}
	if (c.row == nil) != (kind == 'D') || kind == 'D' && c.old == nil {
		return errStreamMalformed
	}
	steps, err := applySteps(r.facts, s.o.Slots, c)
	if err != nil {
		return err
	}
	if len(steps) > 0 {
		s.changed = true
		s.piece.bytes += len(data)
		s.piece.steps = append(s.piece.steps, steps...)
		s.counts.changes.Add(1)
	}
	return nil
}

// streamTuple decodes TupleData, whose values stay in data.
func streamTuple(data []byte, columns int) (row *streamRow, rest []byte, err error) {
	if len(data) < 2 || int(binary.BigEndian.Uint16(data)) != columns {
		return nil, nil, errStreamMalformed
	}
	row, rest = &streamRow{values: make([][]byte, columns)}, data[2:]
	for i := range columns {
		if len(rest) == 0 {
			return nil, nil, errStreamMalformed
		}
		kind := rest[0]
		rest = rest[1:]
		switch kind {
		case 'n':
		case 'u':
			row.unsent = append(row.unsent, i)
		case 't':
			if len(rest) < 4 {
				return nil, nil, errStreamMalformed
			}
			n := binary.BigEndian.Uint32(rest)
			if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
				return nil, nil, errStreamMalformed
			}
			row.values[i], rest = rest[:n:n], rest[n:]
		default:
			return nil, nil, errStreamMalformed
		}
	}
	return row, rest, nil
}
