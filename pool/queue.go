package pool

// queue is who waits for a connection, first come first. The tickets are its links, so
// that to wait takes no storage. The pool's mutex guards it.
type queue struct {
	first, last *Ticket
	n           int
}

// push makes t the last.
func (q *queue) push(t *Ticket) {
	t.before, t.behind = q.last, nil
	if q.last != nil {
		q.last.behind = t
	} else {
		q.first = t
	}
	q.last = t
	q.n++
}

// remove takes out t, which must be in it.
func (q *queue) remove(t *Ticket) {
	if t.before != nil {
		t.before.behind = t.behind
	} else {
		q.first = t.behind
	}
	if t.behind != nil {
		t.behind.before = t.before
	} else {
		q.last = t.before
	}
	t.before, t.behind = nil, nil
	q.n--
}
