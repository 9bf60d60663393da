package query

import "sort"

// shapeText is a text as tokens: where each lies, and for parentheses and
// brackets the token that they pair with.
type shapeText struct {
	src      []byte
	toks     []shapeToken
	literals []Literal
}

type shapeToken struct {
	start, end int32
	pair       int32 // of tokOpen and tokClose; -1 when there is none
	kind       tokenKind
}

// region is a run of tokens from lo up to but not including hi. In an unknown
// one (lo below 0) nothing is located.
type region struct{ lo, hi int }

var nowhere = region{-1, -1}

func (r region) known() bool { return r.lo >= 0 && r.lo < r.hi }

func newShapeText(src []byte, literals []Literal) *shapeText {
	t := &shapeText{src: src, toks: make([]shapeToken, 0, len(src)/4+8), literals: append([]Literal(nil), literals...)}
	var open []int32
	for tok := nextToken(src, 0); tok.kind != tokEnd; tok = nextToken(src, tok.end) {
		s := shapeToken{start: int32(tok.start), end: int32(tok.end), pair: -1, kind: tok.kind}
		at := int32(len(t.toks))
		switch tok.kind {
		case tokOpen:
			open = append(open, at)
		case tokClose:
			if len(open) > 0 {
				s.pair = open[len(open)-1]
				open = open[:len(open)-1]
				t.toks[s.pair].pair = at
			}
		case tokSemicolon:
			open = open[:0]
		}
		t.toks = append(t.toks, s)
	}
	return t
}

// at returns the number of the token that starts at a byte position, -1 when
// none does. The grammar takes the N of N'...' for a word of its own.
func (t *shapeText) at(position int32) int {
	i := sort.Search(len(t.toks), func(i int) bool { return t.toks[i].start >= position })
	switch {
	case position < 0:
		return -1
	case i < len(t.toks) && t.toks[i].start == position:
		return i
	case t.kind(i-1) == tokNational && t.toks[i-1].start+1 == position:
		return i - 1
	}
	return -1
}

// inside returns the tokens that lie in a byte span.
func (t *shapeText) inside(start, end int) region {
	lo := t.at(int32(start))
	if lo < 0 {
		return nowhere
	}
	hi := lo + sort.Search(len(t.toks)-lo, func(i int) bool { return int(t.toks[lo+i].start) >= end })
	return region{lo, hi}
}

// span returns the piece of text from the first to the last token.
func (t *shapeText) span(first, last int) Span {
	if first < 0 || last < first || last >= len(t.toks) {
		return Span{}
	}
	return Span{Start: t.toks[first].start, End: t.toks[last].end, First: int32(first), Last: int32(last)}
}

func (t *shapeText) spanOf(r region) Span {
	if !r.known() {
		return Span{}
	}
	return t.span(r.lo, r.hi-1)
}

func (t *shapeText) kind(i int) tokenKind {
	if i < 0 || i >= len(t.toks) {
		return tokEnd
	}
	return t.toks[i].kind
}

func (t *shapeText) bytes(i int) []byte { return t.src[t.toks[i].start:t.toks[i].end] }

// is says whether token i is one of the words, which are in lower case.
func (t *shapeText) is(i int, words ...string) bool {
	if t.kind(i) != tokWord {
		return false
	}
	for _, w := range words {
		if equalFold(t.bytes(i), w) {
			return true
		}
	}
	return false
}

// equalFold compares ASCII letters regardless of case; w is in lower case.
func equalFold(b []byte, w string) bool {
	if len(b) != len(w) {
		return false
	}
	for i, c := range b {
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != w[i] {
			return false
		}
	}
	return true
}

// opens says whether token i is an open parenthesis.
func (t *shapeText) opens(i int) bool {
	return t.kind(i) == tokOpen && t.src[t.toks[i].start] == '('
}

func (t *shapeText) closes(i int) bool {
	return t.kind(i) == tokClose && t.src[t.toks[i].start] == ')'
}

func (t *shapeText) brackets(i int) bool {
	return t.kind(i) == tokOpen && t.src[t.toks[i].start] == '['
}

func (t *shapeText) point(i int) bool {
	return t.kind(i) == tokPunct && t.toks[i].end-t.toks[i].start == 1 && t.src[t.toks[i].start] == '.'
}

func (t *shapeText) operator(i int, op string) bool {
	return (t.kind(i) == tokOp || t.kind(i) == tokPunct) && string(t.bytes(i)) == op
}

// pair returns the token that closes (or opens) what token i opens (or closes), -1 when unknown.
func (t *shapeText) pair(i int) int {
	if k := t.kind(i); k != tokOpen && k != tokClose {
		return -1
	}
	return int(t.toks[i].pair)
}

// skip returns the token after i, or after the parentheses that i opens.
func (t *shapeText) skip(i int) int {
	if t.kind(i) == tokOpen {
		if p := t.pair(i); p > i {
			return p + 1
		}
	}
	return i + 1
}

// label says whether token i can only be a name, for it stands behind AS or a point.
func (t *shapeText) label(i int) bool {
	return t.point(i-1) || t.is(i-1, "as") && !t.point(i-2)
}

// find returns the first of the words in r that is in no parentheses, -1 when
// there is none. A word behind AS or a point is a name.
func (t *shapeText) find(r region, words ...string) int {
	if !r.known() {
		return -1
	}
	for i := r.lo; i < r.hi; i = t.skip(i) {
		if t.is(i, words...) && (i == r.lo || !t.label(i)) {
			return i
		}
	}
	return -1
}

// split cuts r at the commas that are in no parentheses.
func (t *shapeText) split(r region) []region {
	if !r.known() {
		return nil
	}
	var out []region
	lo := r.lo
	for i := r.lo; i < r.hi; i = t.skip(i) {
		if t.kind(i) == tokComma {
			out = append(out, region{lo, i})
			lo = i + 1
		}
	}
	return append(out, region{lo, r.hi})
}

// group returns what is inside the parenthesis that token i opens.
func (t *shapeText) group(i int) region {
	if !t.opens(i) || t.pair(i) < 0 {
		return nowhere
	}
	return region{i + 1, t.pair(i)}
}

// bare takes parentheses around all of r away.
func (t *shapeText) bare(r region) region {
	for r.known() && t.opens(r.lo) && t.pair(r.lo) == r.hi-1 {
		r = region{r.lo + 1, r.hi - 1}
	}
	return r
}

// name returns the last token of the dotted name that begins at i. A name with
// an escape clause is not followed.
func (t *shapeText) name(i int) int {
	switch t.kind(i) {
	case tokWord, tokQuoted:
	default:
		return -1
	}
	for t.point(i + 1) {
		switch k := t.kind(i + 2); {
		case k == tokWord, k == tokQuoted, k == tokOp && string(t.bytes(i+2)) == "*":
			i += 2
		default:
			return -1
		}
	}
	return i
}

// literal returns the index of the literal that is token i, -1 when it is none.
func (t *shapeText) literal(i int) int32 {
	switch t.kind(i) {
	case tokString, tokEscape, tokNational, tokBits, tokHexBits, tokDollar, tokInt, tokFloat:
	default:
		return -1
	}
	start := int(t.toks[i].start)
	at := sort.Search(len(t.literals), func(j int) bool { return t.literals[j].Start >= start })
	if at == len(t.literals) || t.literals[at].Start != start {
		return -1
	}
	return int32(at)
}
