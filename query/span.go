package query

import "strings"

// isWord says whether t is the given bare word, which is in lower case.
func (b *builder) isWord(t token, word string) bool {
	return t.kind == tokWord && t.end-t.start == len(word) &&
		strings.EqualFold(string(b.src[t.start:t.end]), word)
}

// nameAfterVerb sets the target to the name behind the command's first word
// and returns the position after it.
func (b *builder) nameAfterVerb(name string) int {
	verb := nextToken(b.src, b.c.Start)
	first := nextToken(b.src, verb.end)
	b.c.Target = name
	b.c.TargetStart = first.start
	b.c.TargetEnd = b.nameEnd(first)
	return b.c.TargetEnd
}

// lastName sets the target to the name that ends the command. An empty name
// means ALL or *.
func (b *builder) lastName(name string) {
	b.c.Target, b.c.All = name, name == ""
	if b.c.All {
		return
	}
	for t := nextToken(b.src, b.c.Start); t.kind != tokEnd && t.end <= b.c.End; {
		end := b.nameEnd(t)
		b.c.TargetStart, b.c.TargetEnd = t.start, end
		t = nextToken(b.src, end)
	}
}

// nameEnd returns the end of the name that begins with t: U&"..." takes its
// UESCAPE clause with it.
func (b *builder) nameEnd(t token) int {
	if t.kind != tokUQuoted {
		return t.end
	}
	word := nextToken(b.src, t.end)
	if !b.isWord(word, "uescape") {
		return t.end
	}
	return nextToken(b.src, word.end).end
}

// restAfterVerb returns the span of everything behind the first word.
func (b *builder) restAfterVerb() (start, end int) {
	verb := nextToken(b.src, b.c.Start)
	start = nextToken(b.src, verb.end).start
	if start >= b.c.End {
		return 0, 0
	}
	return start, b.c.End
}
