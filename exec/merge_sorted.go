package exec

import (
	"encoding/binary"

	"shardproxy/wire"
)

// mergeSorted gives the rows in the order of the keys.
func (m *merger) mergeSorted() error {
	if err := m.prime(); err != nil {
		return err
	}
	for {
		i := m.winner()
		if i < 0 || m.left == 0 {
			return m.flush()
		}
		if err := m.give(&m.sources[i]); err != nil {
			return err
		}
		if m.left == 0 {
			return m.flush()
		}
		if err := m.advance(i); err != nil {
			return err
		}
		m.replay(i)
	}
}

// prime reads the first row of every source, in the order in which they come: a
// source that has failed is noticed although another still works.
func (m *merger) prime() error {
	m.keys = make([]mergeKey, len(m.o.Keys))
	for i, o := range m.o.Keys {
		c, ok := comparatorOf(o)
		if !ok {
			return errNotComparable(o.Type)
		}
		m.keys[i] = mergeKey{Order: o, comparator: c}
	}
	values := make([]keyValue, len(m.sources)*len(m.keys))
	for i := range m.sources {
		m.sources[i].keys, values = values[:len(m.keys):len(m.keys)], values[len(m.keys):]
	}
	for range m.sources {
		for found := false; !found; {
			i := m.waiter.wait()
			ok, err := m.fetch(i)
			if err != nil {
				return err
			}
			if ok {
				found, err = m.nextRow(i)
			} else {
				found = true // that there is none
			}
			if err != nil {
				return err
			}
			if found {
				m.waiter.drop(i)
			}
		}
	}
	m.tree = make([]int32, len(m.sources))
	for i := range m.tree {
		m.tree[i] = -1
	}
	for i := len(m.sources) - 1; i >= 0; i-- {
		m.replay(i)
	}
	return nil
}

// advance goes to the source's next row, or its end.
func (m *merger) advance(i int) error {
	s := &m.sources[i]
	for {
		if found, err := m.nextRow(i); found || err != nil {
			return err
		}
		if len(m.out) > 0 {
			select {
			case <-s.Ready():
			default: // the wait may be long
				if err := m.flush(); err != nil {
					return err
				}
			}
		}
		if ok, err := m.fetch(i); !ok || err != nil {
			return err
		}
	}
}

// nextRow goes to the next row in the source's block; false when there is none.
func (m *merger) nextRow(i int) (bool, error) {
	s := &m.sources[i]
	for {
		frame, err := m.message(i)
		if frame == nil {
			return false, err
		}
		if frame[0] == wire.MsgDataRow {
			if s.row = frame; !m.locate(s) {
				return false, m.malformed(i, "A row is not well-formed, or has no keys of the types expected.")
			}
			return true, nil
		}
		if m.other != nil {
			m.other(i, frame)
		}
	}
}

// locate finds in the source's row where the visible part ends, and the keys.
func (m *merger) locate(s *mergeSource) bool {
	row := s.row
	if len(row) < 7 {
		return false
	}
	columns := int(binary.BigEndian.Uint16(row[5:]))
	visible, firstKey := columns-m.o.Hidden, columns-len(m.keys)
	if visible < 0 || firstKey < 0 {
		return false
	}
	at := 7
	for i := range columns {
		if i == visible {
			s.visible = at
		}
		if len(row)-at < 4 {
			return false
		}
		n := int(int32(binary.BigEndian.Uint32(row[at:])))
		at += 4
		var v []byte
		if n >= 0 {
			if n > len(row)-at {
				return false
			}
			v = row[at : at+n]
			at += n
		} else if n != -1 {
			return false
		}
		if k := i - firstKey; k >= 0 && !m.keys[k].read(&s.keys[k], v) {
			return false
		}
	}
	if m.o.Hidden == 0 {
		s.visible = at
	}
	return at == len(row)
}

// before reports whether the current row of source a comes before that of b. -1 is a source that
// comes before all: what a tree is made of.
func (m *merger) before(a, b int32) bool {
	if a < 0 || b < 0 {
		return a < b
	}
	x, y := &m.sources[a], &m.sources[b]
	if x.done || y.done {
		return !x.done
	}
	for k := range m.keys {
		if c := m.keys[k].compare(&x.keys[k], &y.keys[k]); c != 0 {
			return c < 0
		}
	}
	return a < b
}

// winner returns the source whose row is next, -1 when all are at their end.
//
// tree is a tournament: the leaf of source i hangs at (i+k)/2, each inner node from 1 on holds the loser of the
// match between the winners below it, and tree[0] the winner of all. A new row of the winner
// is played against the losers on its way up: log2(k) comparisons.
func (m *merger) winner() int {
	if len(m.tree) == 0 || m.sources[m.tree[0]].done {
		return -1
	}
	return int(m.tree[0])
}

// replay plays the matches of a source that has a new row.
func (m *merger) replay(i int) {
	w := int32(i)
	for at := (i + len(m.tree)) / 2; at > 0; at /= 2 {
		if m.before(m.tree[at], w) {
			m.tree[at], w = w, m.tree[at]
		}
	}
	m.tree[0] = w
}
