package query

// maxOpenLevels bounds the open parentheses that are counted one by one; a
// text with more is too deep whatever else it holds.
const maxOpenLevels = 1024

// depthCounter gives an upper estimate of how deep PostgreSQL's grammar will
// nest the tree of a text, so that a text that would exhaust the C stack is
// never parsed. Each open parenthesis has its own counters; the estimate is
// their sum.
//
// Words and operators are soft: the next comma, AND, OR or WHEN on the same
// level ends what they nested. CASE, JOIN and BETWEEN go on across AND and OR
// (and freeze what was open before them, save for JOIN, whose left side is
// complete); a comma ends them. SELECT counts once per level, set operations
// each time, until the parenthesis is closed.
type depthCounter struct {
	level  int
	sum    int
	max    int
	levels [maxOpenLevels]levelCount
}

type levelCount struct{ soft, mid, hard, query int32 }

func (d *depthCounter) reset() {
	d.level, d.sum, d.max = 0, 0, 0
	d.levels[0] = levelCount{}
}

func (d *depthCounter) add(n int) {
	d.sum += n
	if d.sum > d.max {
		d.max = d.sum
	}
}

// open enters a parenthesis; false when there are too many.
func (d *depthCounter) open() bool {
	if d.level+1 >= maxOpenLevels {
		d.max = max(d.max, maxOpenLevels)
		return false
	}
	d.level++
	d.levels[d.level] = levelCount{}
	d.add(1)
	return true
}

// close leaves a parenthesis and counts it on the outer level.
func (d *depthCounter) close() {
	if d.level == 0 {
		return
	}
	l := &d.levels[d.level]
	d.sum -= int(l.soft+l.mid+l.hard+l.query) + 1
	d.level--
	d.soft()
}

func (d *depthCounter) soft() {
	d.levels[d.level].soft++
	d.add(1)
}

// clearSoft ends what words and operators nested on this level.
func (d *depthCounter) clearSoft() {
	l := &d.levels[d.level]
	d.sum -= int(l.soft)
	l.soft = 0
}

// comma ends everything on this level but set operations.
func (d *depthCounter) comma() {
	l := &d.levels[d.level]
	d.sum -= int(l.soft + l.mid)
	l.soft, l.mid = 0, 0
}

// freeze keeps what is open on this level until the next comma.
func (d *depthCounter) freeze(weight int32) {
	l := &d.levels[d.level]
	l.mid += l.soft + weight
	l.soft = 0
	d.add(int(weight))
}

// command starts a new command at the outermost level.
func (d *depthCounter) command() {
	d.level, d.sum = 0, 0
	d.levels[0] = levelCount{}
}

// word counts a keyword or identifier, already in lower case.
func (d *depthCounter) word(w []byte) {
	switch len(w) {
	case 2:
		if string(w) == "or" {
			d.clearSoft()
		}
	case 3:
		if string(w) == "and" {
			d.clearSoft()
		}
	case 4:
		switch string(w) {
		case "when":
			d.clearSoft()
		case "case":
			d.freeze(3)
			return
		case "join":
			d.levels[d.level].mid += 2
			d.add(2)
			return
		}
	case 5:
		if string(w) == "union" {
			d.set()
			return
		}
	case 6:
		switch string(w) {
		case "select":
			d.selects()
			return
		case "except":
			d.set()
			return
		}
	case 7:
		if string(w) == "between" {
			d.freeze(2)
			return
		}
	case 9:
		if string(w) == "intersect" {
			d.set()
			return
		}
	}
	d.soft()
}

// selects counts the nodes of a query on this level, once.
func (d *depthCounter) selects() {
	l := &d.levels[d.level]
	if l.query == 0 {
		l.query = 2
		d.add(2)
	}
}

// set counts a set operation: the query before it is complete but for its place.
func (d *depthCounter) set() {
	d.comma()
	d.levels[d.level].hard += 2
	d.add(2)
}
