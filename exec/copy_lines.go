package exec

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"shardproxy/wire"
)

// KeptBytes is how much of what was last sent to a shard CopyLines can tell lines of: more
// than a server leaves unread. LinesBytes bounds the memory for that.
const (
	KeptBytes  = 64 << 20
	LinesBytes = 16 << 20
)

// blockRows is how many rows share a block of CopyLines.
const blockRows = 4096

// CopyLines remembers which of the client's lines each row is from that was sent to one shard,
// and tells in them what the shard says of its own. A line takes about one byte.
type CopyLines struct {
	relation string
	blocks   []*linesBlock
	// Where the last row ends: on the shard, for the client; how much has been sent.
	shard, client, sent int64
	memory              int
}

// linesBlock holds rows: for each the client's lines skipped before it, twice, plus 1 if
// more numbers follow: those of the lines inside of it, as shard and client count.
type linesBlock struct {
	shard, client, sent int64 // before the first row
	rows                int
	data                []byte
}

// NewCopyLines returns a memory for one shard; relation is the table's name
// without schema.
func NewCopyLines(relation string) *CopyLines { return &CopyLines{relation: relation} }

// note adds a row that was sent.
func (l *CopyLines) note(row *CopyRow, size int) {
	b := l.last()
	skipped := row.Line - l.client
	onShard, onClient := row.inside(l.shard == 0), row.LastLine-row.Line
	before := len(b.data)
	if onShard == 0 && onClient == 0 {
		b.data = binary.AppendUvarint(b.data, uint64(skipped)<<1)
	} else {
		b.data = binary.AppendUvarint(b.data, uint64(skipped)<<1|1)
		b.data = binary.AppendUvarint(b.data, uint64(onShard))
		b.data = binary.AppendUvarint(b.data, uint64(onClient))
	}
	b.rows++
	l.memory += len(b.data) - before
	l.shard += 1 + onShard
	l.client = row.LastLine
	l.sent += int64(size)
}

// last returns the block to add to, and forgets blocks that are too old.
func (l *CopyLines) last() *linesBlock {
	if n := len(l.blocks); n > 0 && l.blocks[n-1].rows < blockRows {
		return l.blocks[n-1]
	}
	for len(l.blocks) > 1 && (l.sent-l.blocks[1].sent > KeptBytes || l.memory > LinesBytes) {
		l.memory -= len(l.blocks[0].data)
		l.blocks[0] = nil
		l.blocks = l.blocks[1:]
	}
	b := &linesBlock{shard: l.shard, client: l.client, sent: l.sent}
	l.blocks = append(l.blocks, b)
	return b
}

// Line returns the client's line that a shard's is, as each of them counts. reading says
// that the shard may have been in the middle of the row. ok is false when it is not known (any more).
func (l *CopyLines) Line(shard int64, reading bool) (client int64, ok bool) {
	for i := len(l.blocks) - 1; i >= 0; i-- {
		if b := l.blocks[i]; b.shard < shard {
			return b.line(shard, reading)
		}
	}
	return 0, false
}

func (b *linesBlock) line(shard int64, reading bool) (client int64, ok bool) {
	at, line := b.shard, b.client
	for data := b.data; len(data) > 0; {
		next := func() int64 {
			v, n := binary.Uvarint(data)
			data = data[n:]
			return int64(v)
		}
		skipped := next()
		var onShard, onClient int64
		if skipped&1 != 0 {
			onShard, onClient = next(), next()
		}
		at++
		line += skipped >> 1
		switch {
		case shard <= at+onShard && onShard == onClient:
			return line + shard - at, true
		case shard == at+onShard && !reading: // the row's last line, which errors of its values name
			return line + onClient, true
		case shard <= at+onShard:
			return 0, false
		}
		at += onShard
		line += onClient
	}
	return 0, false
}

// Where returns the context of a shard's error with the client's line. Where that is not
// known, or the server speaks another language, the context ends before the number.
func (l *CopyLines) Where(where string) string {
	start := l.contextStart(where)
	if start < 0 {
		return l.withoutNumbers(where)
	}
	head := where[:start] + "COPY " + l.relation
	client, behind, ok := l.clientLine(where[len(head):])
	switch {
	case ok:
		return fmt.Sprintf("%s, line %d%s", head, client, behind)
	case strings.HasPrefix(behind, ", "): // a column
		return head + behind
	}
	return head
}

// ErrorLine returns the client's line that the context of a shard's error names. Of
// several shards' errors the one with the least line is a single server's.
func (l *CopyLines) ErrorLine(where string) (client int64, ok bool) {
	start := l.contextStart(where)
	if start < 0 {
		return 0, false
	}
	client, _, ok = l.clientLine(where[start+len("COPY ")+len(l.relation):])
	return client, ok
}

// clientLine reads what follows the table's name in a context: the line, as the client counts, and what is behind it.
func (l *CopyLines) clientLine(rest string) (client int64, behind string, ok bool) {
	number, found := strings.CutPrefix(rest, ", line ")
	if !found {
		return 0, "", false
	}
	end := 0
	for end < len(number) && number[end] >= '0' && number[end] <= '9' {
		end++
	}
	behind = number[end:]
	line, err := strconv.ParseInt(number[:end], 10, 64)
	if err != nil {
		return 0, behind, false
	}
	// A shard that shows neither line nor column was reading the line.
	reading := behind == "" || behind[0] == '\n'
	client, ok = l.Line(line, reading)
	return client, behind, ok
}

// withoutNumbers ends a context, in which COPY's line was not found as English has it, before the
// first line that may be it: with a number, and the table's name, or COPY.
func (l *CopyLines) withoutNumbers(where string) string {
	kept := ""
	for line := range strings.Lines(where) {
		if strings.ContainsAny(line, "0123456789") &&
			(strings.HasPrefix(line, "COPY ") || strings.Contains(line, l.relation) || !ascii(l.relation)) {
			return strings.TrimSuffix(kept, "\n")
		}
		kept += line
	}
	return kept
}

// contextStart finds the line of a context that is COPY's.
func (l *CopyLines) contextStart(where string) int {
	head := "COPY " + l.relation
	for from := 0; ; {
		i := strings.Index(where[from:], head)
		if i < 0 {
			return -1
		}
		if i += from; i == 0 || where[i-1] == '\n' {
			return i
		}
		from = i + 1
	}
}

// AppendFields appends the fields of an ErrorResponse or NoticeResponse (a frame's body) to dst, all
// as they are but the context, for which see Where.
func (l *CopyLines) AppendFields(dst, body []byte) []byte {
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := wire.CString(body[1:])
		if !ok {
			break
		}
		dst = append(dst, body[0])
		if body[0] == 'W' {
			dst = append(dst, l.Where(string(value))...)
		} else {
			dst = append(dst, value...)
		}
		dst = append(dst, 0)
		body = rest
	}
	return append(dst, 0)
}
