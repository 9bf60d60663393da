package listappend

// Options say what is looked for.
type Options struct {
	// Process adds the order of each client's transactions, Realtime that of
	// transactions which did not overlap; the latter holds the former. Cycles that
	// need such an order are reported under it.
	Process, Realtime bool
	// Limit is how many anomalies of one kind and order are described; 0 means 10.
	Limit int
}

// Check finds the anomalies of a history, in time that grows with its length. In knots of
// many thousands of transactions it gives up telling the kinds apart, not finding: a
// read skew may then be reported as Nonadjacent, which is forbidden where it is.
//
// It fails only on a history that appends one value to one key twice.
func Check(h History, o Options) (*Report, error) {
	origins, err := h.origins()
	if err != nil {
		return nil, err
	}
	if o.Limit <= 0 {
		o.Limit = 10
	}
	c := &checker{h: h, origins: origins, committed: h.committed(origins), report: &Report{limit: o.Limit}}
	for _, is := range c.committed {
		if is {
			c.report.Committed++
		}
	}
	c.readLists()
	c.readOwn()
	c.lostAppends()
	c.lostUpdates()
	c.fracturedReads()
	c.dependencies()
	c.search(Data)
	if o.Process {
		mark := len(c.edges)
		c.processOrder()
		c.search(Process)
		c.edges = c.edges[:mark]
	}
	if o.Realtime {
		c.realtimeOrder()
		c.search(Realtime)
	}
	return c.report, nil
}

// checker is the work on one history.
type checker struct {
	h         History
	origins   map[element]origin
	committed []bool
	report    *Report

	keys  map[int64]*versions
	read  []*versions // the same, in order of reading
	views []view
	edges []edge
}
