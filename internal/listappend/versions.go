package listappend

import (
	"fmt"
	"slices"
)

// versions are what is known of a key's list.
type versions struct {
	key   int64
	order []int64 // the longest list that was read
	by    []int32 // who appended each value of order; -1 for nobody
	// unseen are committed transactions with an append that is in no list: behind all
	// of order, in an order that nobody knows.
	unseen []int32
	places map[int64]int32 // of the values of order
}

// view is a committed read that fits its key's order.
type view struct {
	txn int32
	of  *versions
	// seen is how many values the list had without the reader's own at its end.
	seen int32
}

// readLists puts each key's lists in order and judges them by themselves.
func (c *checker) readLists() {
	c.keys = map[int64]*versions{}
	c.eachRead(func(_ int32, op *Op) {
		k := c.keys[op.Key]
		if k == nil {
			k = &versions{key: op.Key}
			c.keys[op.Key] = k
			c.read = append(c.read, k)
		}
		if len(op.List) > len(k.order) {
			k.order = op.List
		}
	})
	for _, k := range c.read {
		c.order(k)
	}
	c.unseen()
	misfits := map[int64]bool{}
	c.eachRead(func(t int32, op *Op) {
		k := c.keys[op.Key]
		c.judgeValues(t, op)
		if slices.Equal(op.List, k.order[:len(op.List)]) {
			c.views = append(c.views, view{t, k, int32(len(c.others(t, op)))})
			return
		}
		if !misfits[op.Key] { // once for each key
			misfits[op.Key] = true
			c.report.add(Anomaly{Kind: IncompatibleOrder, Txns: []int{int(t)},
				Detail: fmt.Sprintf("T%d read %v of key %d, which is not how %v begins", t, op.List, op.Key, k.order)})
		}
	})
}

// eachRead calls f for the reads of committed transactions.
func (c *checker) eachRead(f func(t int32, op *Op)) {
	for i := range c.h {
		if !c.committed[i] {
			continue
		}
		for j := range c.h[i].Ops {
			if op := &c.h[i].Ops[j]; !op.Append {
				f(int32(i), op)
			}
		}
	}
}

// order finds who made a key's list, and what can be wrong with it only once.
func (c *checker) order(k *versions) {
	k.places = make(map[int64]int32, len(k.order))
	dirty := int32(-1)
	for i, v := range k.order {
		o, known := c.origins[element{k.key, v}]
		if !known {
			o.txn = -1
		}
		k.by = append(k.by, o.txn)
		if _, twice := k.places[v]; twice {
			c.report.add(Anomaly{Kind: Duplicate, Detail: fmt.Sprintf("%d is twice in key %d: %v", v, k.key, k.order)})
		}
		k.places[v] = int32(i)
		switch {
		case !known:
			c.report.add(Anomaly{Kind: Phantom, Detail: fmt.Sprintf("nobody appended %d to key %d", v, k.key)})
		case !c.committed[o.txn]:
			dirty = o.txn
		case dirty >= 0:
			c.report.add(Anomaly{Kind: DirtyUpdate, Txns: []int{int(dirty), int(o.txn)},
				Detail: fmt.Sprintf("T%d appended %d to key %d behind what T%d had, which failed", o.txn, v, k.key, dirty)})
			dirty = -1
		}
	}
}

// unseen finds the appends that no list has.
func (c *checker) unseen() {
	for i := range c.h {
		if !c.committed[i] {
			continue
		}
		for _, op := range c.h[i].Ops {
			if k := c.keys[op.Key]; op.Append && k != nil {
				if _, seen := k.places[op.Value]; !seen && (len(k.unseen) == 0 || k.unseen[len(k.unseen)-1] != int32(i)) {
					k.unseen = append(k.unseen, int32(i))
				}
			}
		}
	}
}

// others returns a list without the reader's own values at its end.
func (c *checker) others(t int32, op *Op) []int64 {
	list := op.List
	for n := len(list); n > 0; n-- {
		if o, known := c.origins[element{op.Key, list[n-1]}]; !known || o.txn != t {
			return list[:n]
		}
	}
	return nil
}

// judgeValues looks at the values of one list.
func (c *checker) judgeValues(t int32, op *Op) {
	list := c.others(t, op)
	for i, v := range slices.Backward(list) {
		o, known := c.origins[element{op.Key, v}]
		switch {
		case !known || o.txn == t:
		case c.h[o.txn].Outcome == Failed:
			c.report.add(Anomaly{Kind: AbortedRead, Txns: []int{int(o.txn), int(t)},
				Detail: fmt.Sprintf("T%d read %d in key %d, which T%d had appended and which failed", t, v, op.Key, o.txn)})
			return
		case i == len(list)-1 && !o.last:
			c.report.add(Anomaly{Kind: IntermediateRead, Txns: []int{int(o.txn), int(t)},
				Detail: fmt.Sprintf("T%d read key %d up to %d, behind which T%d appended another", t, op.Key, v, o.txn)})
		}
	}
}

// readOwn compares what transactions read with what they had appended themselves: a
// list that one has appended to is locked, and ends with its values.
func (c *checker) readOwn() {
	for i := range c.h {
		if !c.committed[i] {
			continue
		}
		own := map[int64][]int64{}
		for _, op := range c.h[i].Ops {
			if op.Append {
				own[op.Key] = append(own[op.Key], op.Value)
				continue
			}
			mine := own[op.Key]
			rest := max(len(op.List)-len(mine), 0)
			early := slices.ContainsFunc(op.List[:rest], func(v int64) bool {
				o, known := c.origins[element{op.Key, v}]
				return known && o.txn == int32(i)
			})
			if early || !slices.Equal(op.List[rest:], mine) {
				c.report.add(Anomaly{Kind: Internal, Txns: []int{i},
					Detail: fmt.Sprintf("T%d had appended %v to key %d and read %v", i, mine, op.Key, op.List)})
				break
			}
		}
	}
}
