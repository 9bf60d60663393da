package exec

import (
	"encoding/binary"
	"errors"
	"io"
	"iter"

	"shardproxy/wire"
)

// Pieces is a Merge that stops where its user wants and goes on later. Nothing runs between two calls:
// its user brings the rows of the sources in blocks, when it is asked for them. One goroutine at a time uses
// it. Close must be called.
type Pieces struct {
	next    func() (piece, bool)
	stop    func()
	sources []pieceSource
	offset  int64
	rows    []byte // what the merge has given and nobody has taken
	err     error  // io.EOF at the end

	fed, taken int64 // rows
}

// piece is what a merge stops for: rows, or a source of which it needs more.
type piece struct {
	rows  []byte
	wants int
}

// pieceSource is a source whose blocks are brought.
type pieceSource struct {
	index  int
	yield  func(piece) bool
	blocks [][]byte
	bytes  int // of blocks, and of the one that the merge has
	lent   int // of the latter
	ended  bool
	// ready is always so; asked is set when it has been asked for.
	ready chan struct{}
	asked bool
}

// errClosed ends a merge of which nobody wants more.
var errClosed = errors.New("exec: the pieces are closed")

// NewPieces returns a Merge of so many sources that is taken in pieces.
func NewPieces(sources int, o MergeOptions) *Pieces {
	p := &Pieces{sources: make([]pieceSource, sources), offset: o.Offset}
	all, ready := make([]Source, sources), make(chan struct{})
	close(ready)
	p.next, p.stop = iter.Pull(func(yield func(piece) bool) {
		for i := range p.sources {
			p.sources[i].index, p.sources[i].yield, p.sources[i].ready = i, yield, ready
			all[i] = &p.sources[i]
		}
		_, err := Merge(all, o, func(frames []byte) error {
			if !yield(piece{rows: frames}) {
				return errClosed
			}
			return nil
		}, nil)
		if p.err = err; err == nil {
			p.err = io.EOF
		}
	})
	return p
}

// Next returns the next rows, max at most (all that there are when it is negative), as whole DataRow messages that are
// valid until the next call, and how many these are. When there are none yet, wants is the source of which a block must
// be fed first; it is -1 otherwise. At the end the error is io.EOF; others are those of Merge, and stay.
func (p *Pieces) Next(max int64) (frames []byte, rows int64, wants int, err error) {
	for len(p.rows) == 0 {
		if p.err != nil {
			return nil, 0, -1, p.err
		}
		got, ok := p.next()
		switch {
		case ok && got.rows == nil:
			return nil, 0, got.wants, nil
		case ok:
			p.rows = got.rows
		}
	}
	n := 0
	for n < len(p.rows) && rows != max {
		n += int(binary.BigEndian.Uint32(p.rows[n+1:])) + 1
		rows++
	}
	frames, p.rows = p.rows[:n], p.rows[n:]
	p.taken += rows
	return frames, rows, -1, nil
}

// Feed brings the next rows of a source, as whole DataRow messages, which are the Pieces' then. ended is set
// when there are no more behind them. Messages that are not well-formed are an error of Next.
func (p *Pieces) Feed(source int, frames []byte, ended bool) {
	s := &p.sources[source]
	if s.ended = s.ended || ended; len(frames) == 0 {
		return
	}
	s.blocks, s.bytes = append(s.blocks, frames), s.bytes+len(frames)
	for b := frames; len(b) >= 5; {
		n := uint64(binary.BigEndian.Uint32(b[1:])) + 1
		if b[0] == wire.MsgDataRow {
			p.fed++
		}
		b = b[min(n, uint64(len(b))):]
	}
}

// Wants reports whether a source would do with more: all of its blocks are in use, and there
// may be others.
func (p *Pieces) Wants(source int) bool {
	s := &p.sources[source]
	return !s.ended && len(s.blocks) == 0
}

// Held returns how many bytes of blocks are held.
func (p *Pieces) Held() (bytes int) {
	for i := range p.sources {
		bytes += p.sources[i].bytes
	}
	return bytes
}

// Unread reports whether rows were fed that Next has not given, but for those that the offset leaves out.
func (p *Pieces) Unread() bool {
	if p.err != nil || p.taken == 0 {
		return p.err == nil && p.fed > 0
	}
	return p.fed > p.taken+p.offset
}

// Close ends the merge. All that is held is free.
func (p *Pieces) Close() {
	p.stop()
	p.rows, p.sources, p.err = nil, nil, errClosed
}

// Next implements Source: it stops the merge for another block.
func (s *pieceSource) Next() ([]byte, error) {
	s.bytes, s.lent = s.bytes-s.lent, 0
	for len(s.blocks) == 0 {
		if s.ended {
			return nil, io.EOF
		}
		if !s.yield(piece{wants: s.index}) {
			return nil, errClosed
		}
	}
	block := s.blocks[0]
	s.blocks = s.blocks[1:]
	s.lent = len(block)
	return block, nil
}

// Ready implements Source. A merge that waits for the first of several asks once: there is no waiting here. One
// that asks again is to give what is due before it asks for a block.
func (s *pieceSource) Ready() <-chan struct{} {
	if s.asked && len(s.blocks) == 0 && !s.ended {
		return nil
	}
	s.asked = true
	return s.ready
}
