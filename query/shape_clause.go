package query

// mark is a clause of a query in the text: its keyword and the token behind it.
type mark struct {
	word    string
	at, end int
}

// marks is what a query's text consists of, in its order.
type marks []mark

// find returns the clause behind its keyword, and where the keyword is.
func (m marks) find(word string) (r region, at int) {
	for _, k := range m {
		if k.word == word {
			return region{k.at + 1, k.end}, k.at
		}
	}
	return nowhere, -1
}

// behind returns the clause without its keyword, and without BY.
func (m marks) behind(t *shapeText, word string) region {
	r, _ := m.find(word)
	if r.known() && (word == "group" || word == "order") && t.is(r.lo, "by") { // elsewhere it may be a column
		r.lo++
	}
	return r
}

// span returns the clause with its keyword.
func (m marks) span(t *shapeText, word string) Span {
	r, at := m.find(word)
	if !r.known() {
		return Span{}
	}
	return t.span(at, r.hi-1)
}

// clauses finds the keywords that begin clauses in r: those that stand in no
// parentheses, and are no names. Each counts once.
func (t *shapeText) clauses(r region, words ...string) marks {
	if !r.known() {
		return nil
	}
	var out marks
	for i := r.lo; i < r.hi; i = t.skip(i) {
		if t.kind(i) != tokWord || i > r.lo && t.label(i) {
			continue
		}
		for _, w := range words {
			if !equalFold(t.bytes(i), w) || t.otherwise(i, w) {
				continue
			}
			if _, at := out.find(w); at >= 0 {
				break // ROWS FROM, USING of a join, a second FOR
			}
			if len(out) > 0 {
				out[len(out)-1].end = i
			}
			out = append(out, mark{word: w, at: i, end: r.hi})
			break
		}
	}
	return out
}

// otherwise finds the keywords that belong to something else: IS DISTINCT FROM,
// WITHIN GROUP, COLLATION FOR.
func (t *shapeText) otherwise(i int, word string) bool {
	switch word {
	case "from":
		return t.is(i-1, "distinct") && t.is(i-2, "is", "not")
	case "group":
		return t.is(i-1, "within")
	case "for":
		return t.collationFor(i - 1)
	}
	return false
}

// selectClauses returns the clauses of a SELECT, also of one in parentheses
// with further clauses behind.
func (t *shapeText) selectClauses(r region) marks {
	r = t.bare(r)
	if !r.known() {
		return nil
	}
	if t.opens(r.lo) {
		inner := t.selectClauses(t.group(r.lo))
		if p := t.pair(r.lo); p > 0 && p+1 < r.hi {
			inner = append(inner, t.selectClauses(region{p + 1, r.hi})...)
		}
		return inner
	}
	return t.clauses(r, "select", "table", "values", "into", "from", "where", "group", "having", "window",
		"order", "limit", "offset", "fetch", "for")
}

// setOperator finds the operator that a set operation consists of: the last
// one of the weakest kind. parts is r without parentheses around its arms,
// tail what follows the last arm.
func (t *shapeText) setOperator(r region) (op int, arms, tail region) {
	arms, tail = t.bare(r), nowhere
	for arms.known() {
		union, intersect, end := -1, -1, -1
		for i := arms.lo; i < arms.hi && end < 0; i = t.skip(i) {
			switch {
			case i > arms.lo && t.label(i) || t.collationFor(i-1):
			case t.is(i, "union", "except"):
				union = i
			case t.is(i, "intersect"):
				intersect = i
			case (union >= 0 || intersect >= 0 || t.closes(i-1)) && t.is(i, "order", "limit", "offset", "fetch", "for"):
				end = i
			}
		}
		if end >= 0 {
			tail = region{end, arms.hi}
			arms.hi = end
		}
		switch {
		case union >= 0:
			return union, arms, tail
		case intersect >= 0:
			return intersect, arms, tail
		case !t.opens(arms.lo) || t.pair(arms.lo) != arms.hi-1:
			return -1, nowhere, nowhere
		}
		arms = t.bare(arms)
	}
	return -1, nowhere, nowhere
}

// joinWord says whether a join begins at i.
func (t *shapeText) joinWord(i int) bool {
	if t.point(i - 1) {
		return false
	}
	return t.is(i, "join", "natural", "cross") ||
		t.is(i, "inner", "left", "right", "full") && t.is(i+1, "join", "outer")
}

// onEnd returns the token behind the condition that begins at i.
func (t *shapeText) onEnd(i, hi int) int {
	for start := i; i < hi; i = t.skip(i) {
		if t.kind(i) == tokClose || t.kind(i) == tokComma || t.joinWord(i) ||
			i > start && !t.point(i-1) && t.is(i, "on", "using") {
			return i
		}
	}
	return hi
}

// subqueryGroup returns the parentheses of the subquery whose first word is at
// i: the outermost ones that hold nothing else.
func (t *shapeText) subqueryGroup(i int) (open, closing int) {
	if !t.opens(i-1) || t.pair(i-1) < 0 {
		return -1, -1
	}
	open = i - 1
	for t.opens(open - 1) {
		behind := t.pair(open) + 1
		if !t.closes(behind) && !t.is(behind, "union", "intersect", "except", "order", "limit", "offset", "fetch", "for") {
			break
		}
		open--
	}
	return open, t.pair(open)
}
