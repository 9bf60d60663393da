package listappend

import (
	"fmt"
	"slices"
)

// lostAppends finds what was acknowledged and is in no list, although somebody who
// came later has read the key.
func (c *checker) lostAppends() {
	latest := map[int64]int32{} // the last to begin of those that read a key
	c.eachRead(func(t int32, op *Op) {
		if before, has := latest[op.Key]; !has || c.h[t].Begin > c.h[before].Begin {
			latest[op.Key] = t
		}
	})
	for i := range c.h {
		t := &c.h[i]
		if t.Outcome != OK || t.End == 0 {
			continue
		}
		for _, op := range t.Ops {
			reader, read := latest[op.Key]
			if !op.Append || !read || c.h[reader].Begin <= t.End {
				continue
			}
			if _, seen := c.keys[op.Key].places[op.Value]; !seen {
				c.report.add(Anomaly{Kind: LostAppend, Txns: []int{i, int(reader)},
					Detail: fmt.Sprintf("T%d was told that it had appended %d to key %d; T%d came later and has read %v", i, op.Value, op.Key, reader, c.keys[op.Key].order)})
			}
		}
	}
}

// lostUpdates finds transactions that read one version of a list, and appended to it
// later, each.
func (c *checker) lostUpdates() {
	type version struct {
		key    int64
		length int
	}
	by := map[version]int32{}
	for i := range c.h {
		if !c.committed[i] {
			continue
		}
		read := map[int64]int{} // the length of the last list before the first append
		done := map[int64]bool{}
		for _, op := range c.h[i].Ops {
			switch n, has := read[op.Key]; {
			case !op.Append && !done[op.Key]:
				read[op.Key] = len(op.List)
			case op.Append && has && !done[op.Key]:
				v := version{op.Key, n}
				if other, twice := by[v]; twice {
					c.report.add(Anomaly{Kind: LostUpdate, Txns: []int{int(other), i},
						Detail: fmt.Sprintf("T%d and T%d both read the first %d of key %d and appended to it", other, i, n, op.Key)})
				}
				by[v] = int32(i)
			}
			if op.Append {
				done[op.Key] = true
			}
		}
	}
}

// span is what a transaction saw of a key: at least the first values of its order, at
// most the first many.
type span struct {
	of          *versions
	least, most int32
}

// fracturedReads finds transactions that saw a part of another.
func (c *checker) fracturedReads() {
	for begin := 0; begin < len(c.views); {
		end := begin
		var spans []span
		for ; end < len(c.views) && c.views[end].txn == c.views[begin].txn; end++ {
			v := c.views[end]
			i := slices.IndexFunc(spans, func(s span) bool { return s.of == v.of })
			if i < 0 {
				spans = append(spans, span{v.of, v.seen, v.seen})
				continue
			}
			spans[i].least, spans[i].most = min(spans[i].least, v.seen), max(spans[i].most, v.seen)
		}
		c.fractured(c.views[begin].txn, spans)
		begin = end
	}
}

// fractured judges one transaction's reads.
func (c *checker) fractured(reader int32, spans []span) {
	if len(spans) == 1 && spans[0].least == spans[0].most {
		return
	}
	at := map[int64]*span{}
	for i := range spans {
		at[spans[i].of.key] = &spans[i]
	}
	for i := range spans {
		s := &spans[i]
		for _, missed := range [][]int32{s.of.by[s.least:], s.of.unseen} {
			for _, w := range missed {
				if w < 0 || w == reader || !c.committed[w] {
					continue
				}
				if other := c.sawSome(w, at); other != nil {
					c.report.add(Anomaly{Kind: FracturedRead, Txns: []int{int(reader), int(w)},
						Detail: fmt.Sprintf("T%d saw what T%d appended to key %d and not all that it appended to key %d", reader, w, other.key, s.of.key)})
					return
				}
			}
		}
	}
}

// sawSome returns a key in which something of a transaction was seen.
func (c *checker) sawSome(w int32, at map[int64]*span) *versions {
	for _, op := range c.h[w].Ops {
		if !op.Append {
			continue
		}
		if s := at[op.Key]; s != nil {
			if place, has := s.of.places[op.Value]; has && place < s.most {
				return s.of
			}
		}
	}
	return nil
}
