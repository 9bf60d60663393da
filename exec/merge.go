package exec

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"shardproxy/wire"
)

// MergeOptions say how the rows of several sources become those of one.
type MergeOptions struct {
	// Keys order the rows, by the last len(Keys) columns of each, in binary format; each source
	// is in this order already. None: rows are taken as they come, and not looked into.
	Keys []Order
	// Hidden is the number of columns at the end of each row that are cut off.
	Hidden int
	// Offset is the number of rows that are left out first.
	Offset int64
	// Limit is the number of rows that are given at most; -1: all.
	Limit int64
}

// Source is one shard's rows, such as a *pool.Stream.
type Source interface {
	// Next waits for the next messages, whole, one or more, which are the caller's, to change too, until
	// the next call; io.EOF at the end.
	Next() ([]byte, error)
	// Ready gives a token when Next would not wait; who takes it calls Next before waiting
	// for another.
	Ready() <-chan struct{}
}

// SourceError is what one source failed with.
type SourceError struct {
	Source int
	Err    error
}

// Error names the source.
func (e *SourceError) Error() string { return fmt.Sprintf("source %d: %v", e.Source, e.Err) }

// Unwrap returns what the source said.
func (e *SourceError) Unwrap() error { return e.Err }

// Merge gives the DataRow messages of all sources to sink, in batches of whole messages of about 64 KiB at most
// (a larger message stands alone) that are valid until sink returns. Rows of equal keys come in
// any order. Whenever Merge has to wait for a source, sink has been given all that is due.
// All other messages of a source are given to other, unless it is nil, as they are met: they are not in step with
// the rows of other sources. frame is valid until other returns.
//
// Merge ends when all sources are at their end, or the limit is reached: the caller cancels what still runs; with a limit
// of 0, at the first row of any source. It returns the number of rows given to sink and the first error: of a
// source a *SourceError, of sink as it is. Messages or keys that are not well-formed are an error of code
// 08P01, a key that is not Comparable one of XX000. After an error rows that sink has not been given are
// lost. Merge starts nothing; it may be stopped by having a source fail.
func Merge(sources []Source, o MergeOptions, sink func(frames []byte) error, other func(source int, frame []byte)) (rows int64, err error) {
	m := &merger{sources: make([]mergeSource, len(sources)), waiter: newWaiter(sources), o: o, left: o.Limit, sink: sink, other: other}
	if o.Limit < 0 {
		m.left = math.MaxInt64
	}
	for i, s := range sources {
		m.sources[i].Source = s
	}
	if len(o.Keys) == 0 {
		err = m.concatenate()
	} else {
		err = m.mergeSorted()
	}
	return m.given, err
}

// mergeBatch is how much is gathered for the sink, and mergeAlone from which size on a row
// is given without being copied, in bytes.
const (
	mergeBatch = 64 << 10
	mergeAlone = 16 << 10
)

// merger is one Merge.
type merger struct {
	sources []mergeSource
	waiter  *waiter
	keys    []mergeKey
	tree    []int32 // see winner
	o       MergeOptions
	left    int64 // how many rows may still be given
	sink    func([]byte) error
	other   func(int, []byte)

	out     []byte // rows for the sink
	outRows int64
	given   int64
}

// mergeSource is where the merger is in a source.
type mergeSource struct {
	Source
	block []byte // what is left of what Next returned
	done  bool

	row     []byte // the message of the current row, of sorted sources
	visible int    // how much of it stays, in bytes
	keys    []keyValue
}

func (m *merger) failed(i int, err error) error { return &SourceError{Source: i, Err: err} }

func (m *merger) malformed(i int, what string) error {
	return m.failed(i, wire.Errorf("08P01", "lost synchronization with the server").WithDetail("%s", what))
}

// fetch has the source's next messages in its block. It waits; false says that there are none.
func (m *merger) fetch(i int) (bool, error) {
	s := &m.sources[i]
	var err error
	s.block, err = s.Next()
	if err == io.EOF {
		s.done, s.block = true, nil
		m.waiter.drop(i)
		return false, nil
	}
	if err != nil {
		return false, m.failed(i, err)
	}
	return true, nil
}

// message takes the next message off the source's block; nil when it is used up.
func (m *merger) message(i int) ([]byte, error) {
	s := &m.sources[i]
	if len(s.block) < 5 {
		if len(s.block) > 0 {
			return nil, m.malformed(i, "A message is cut off.")
		}
		return nil, nil
	}
	n := uint64(binary.BigEndian.Uint32(s.block[1:])) + 1
	if n < 5 || n > uint64(len(s.block)) {
		return nil, m.malformed(i, "A message is cut off.")
	}
	frame := s.block[:n]
	s.block = s.block[n:]
	return frame, nil
}

// concatenate gives the rows as they come.
func (m *merger) concatenate() error {
	for range m.sources {
		for {
			i := m.waiter.wait()
			ok, err := m.fetch(i)
			if err != nil {
				return err
			}
			if !ok {
				break // one source less
			}
			if stop, err := m.pass(i); err != nil || stop {
				return err
			}
		}
	}
	return nil
}

// pass gives the rows of a source's block. It says true when the limit is reached.
func (m *merger) pass(i int) (stop bool, err error) {
	block := m.sources[i].block
	from, to := 0, 0 // rows that lie together and are not given yet
	give := func() error {
		if from == to {
			return nil
		}
		if err := m.sink(block[from:to]); err != nil {
			return err
		}
		m.given, m.outRows = m.given+m.outRows, 0
		return nil
	}
	for !stop {
		frame, err := m.message(i)
		if err != nil {
			return false, err
		}
		if frame == nil {
			break
		}
		at := len(block) - len(m.sources[i].block)
		switch {
		case frame[0] != wire.MsgDataRow:
			if err := give(); err != nil {
				return false, err
			}
			if from, to = at, at; m.other != nil {
				m.other(i, frame)
			}
		case m.left == 0:
			stop = true
		case m.o.Offset > 0:
			m.o.Offset--
			from, to = at, at
		case m.o.Hidden > 0:
			if err := m.giveCut(i, frame); err != nil {
				return false, err
			}
			stop = m.left == 0
		default:
			to = at
			m.outRows++
			m.left--
			stop = m.left == 0
		}
	}
	if m.o.Hidden > 0 {
		return stop, m.flush()
	}
	return stop, give()
}

// giveCut gives a row that has no keys, but hidden columns.
func (m *merger) giveCut(i int, frame []byte) error {
	s := &m.sources[i]
	if s.row = frame; !m.locate(s) {
		return m.malformed(i, "A row is not well-formed.")
	}
	return m.give(s)
}

// give has the current row of a source be the next for the sink.
func (m *merger) give(s *mergeSource) error {
	if m.o.Offset > 0 {
		m.o.Offset--
		return nil
	}
	m.left--
	columns := binary.BigEndian.Uint16(s.row[5:]) - uint16(m.o.Hidden)
	if len(m.out)+s.visible > mergeBatch || s.visible >= mergeAlone {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if s.visible >= mergeAlone {
		putHeader(s.row, s.visible, columns)
		if err := m.sink(s.row[:s.visible]); err != nil {
			return err
		}
		m.given++
		return nil
	}
	at := len(m.out)
	m.out = append(m.out, s.row[:s.visible]...)
	putHeader(m.out[at:], s.visible, columns)
	m.outRows++
	return nil
}

// putHeader writes the length and number of columns of a row whose message has size bytes.
func putHeader(row []byte, size int, columns uint16) {
	binary.BigEndian.PutUint32(row[1:], uint32(size-1))
	binary.BigEndian.PutUint16(row[5:], columns)
}

// flush gives the sink the rows that wait for it.
func (m *merger) flush() error {
	if len(m.out) == 0 {
		return nil
	}
	if err := m.sink(m.out); err != nil {
		return err
	}
	m.given += m.outRows
	m.out, m.outRows = m.out[:0], 0
	return nil
}
