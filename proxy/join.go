package proxy

import (
	"bytes"
	"strconv"

	"shardproxy/pool"
	"shardproxy/wire"
)

// join makes one answer of those of several shards.
func (r *allRequest) join(answers []pool.Answer) (out pool.Answer, e *wire.Error) {
	if r.adds {
		return joinAll(answers)
	}
	return r.joinRows(answers)
}

// joinAll makes one answer of those to a statement that ran on the rows of each shard: all
// rows, in no order that PostgreSQL would promise either, and the number of all.
func joinAll(answers []pool.Answer) (out pool.Answer, e *wire.Error) {
	var head, rows, end []byte
	command, count := "", 0
	for i := range answers {
		of, n, ok := answers[i].Count()
		if !ok {
			return out, wire.Errorf("XX000", "a shard answered %q to a write", answers[i].Tag)
		}
		command, count = of, count+n
		before, mine, behind := cutRows(answers[i].Frames)
		if i == 0 {
			head, end = before, behind
		} else {
			head = append(head[:len(head):len(head)], newNotices(before, head)...)
		}
		rows = append(rows, bytes.Join(mine, nil)...)
	}
	out.Frames = append(append(out.Frames, head...), rows...)
	out.Tag = command + strconv.Itoa(count)
	out.Frames = append(wire.AppendCommandComplete(out.Frames, out.Tag), end...)
	return out, nil
}

// newNotices returns the notices among frames that are not among others: what a server says
// of the text, all say.
func newNotices(frames, others []byte) (out []byte) {
	for len(frames) > 0 {
		size := frameSize(frames)
		if frames[0] == wire.MsgNoticeResponse && !bytes.Contains(others, frames[:size]) {
			out = append(out, frames[:size]...)
		}
		frames = frames[size:]
	}
	return out
}

// joinRows makes one answer of those to the parts of an INSERT: the rows that it returns in
// the order in which they were given, and the number of all.
func (r *allRequest) joinRows(answers []pool.Answer) (out pool.Answer, e *wire.Error) {
	total, count := 0, 0
	rows := map[int][]byte{}
	var head, end []byte
	for i := range answers {
		_, n, ok := answers[i].Count()
		if !ok {
			return out, wire.Errorf("XX000", "a shard answered %q to an INSERT", answers[i].Tag)
		}
		count += n
		before, mine, behind := cutRows(answers[i].Frames)
		if i == 0 {
			head, end = before, behind
		}
		if len(mine) > 0 && len(mine) != len(r.rows[i]) {
			return out, wire.Errorf("0A000", "rows were left out, and the order of the others in RETURNING is not known").
				WithHint("Leave out RETURNING or ON CONFLICT, or send one INSERT for each key.")
		}
		for j, row := range mine {
			rows[r.rows[i][j]] = row
		}
		total += len(r.rows[i])
	}
	if len(rows) > 0 && len(rows) != total {
		return out, wire.Errorf("0A000", "rows were left out, and the order of the others in RETURNING is not known").
			WithHint("Leave out RETURNING or ON CONFLICT, or send one INSERT for each key.")
	}
	out.Frames = append(out.Frames, head...)
	for i := range total {
		out.Frames = append(out.Frames, rows[i]...)
	}
	out.Tag = "INSERT 0 " + strconv.Itoa(count)
	out.Frames = wire.AppendCommandComplete(out.Frames, out.Tag)
	out.Frames = append(out.Frames, end...)
	return out, nil
}

// cutRows divides an answer into what stands before its rows, the rows, and what stands
// behind its end.
func cutRows(frames []byte) (head []byte, rows [][]byte, end []byte) {
	for len(frames) > 0 {
		kind, size := frames[0], frameSize(frames)
		switch kind {
		case wire.MsgDataRow:
			rows = append(rows, frames[:size])
		case wire.MsgCommandComplete:
			return head, rows, frames[size:]
		default:
			head = append(head, frames[:size]...)
		}
		frames = frames[size:]
	}
	return head, rows, nil
}

// withoutParse returns an answer without its ParseComplete, before which notices may stand.
func withoutParse(frames []byte) []byte {
	for at := 0; at < len(frames); at += frameSize(frames[at:]) {
		if frames[at] == wire.MsgParseComplete {
			return append(frames[:at:at], frames[at+5:]...)
		}
	}
	return frames
}

// withoutPosition returns the fields of an error without the position: it is one in a
// text that was rewritten.
func withoutPosition(body []byte) (out []byte) {
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := wire.CString(body[1:])
		if !ok {
			return append(out, body...)
		}
		if body[0] != 'P' {
			out = append(append(append(out, body[0]), value...), 0)
		}
		body = rest
	}
	return append(out, 0)
}
