package proxy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"shardproxy/wire"
)

// talk is one client's conversation.
type talk struct {
	*rawClient
	patience   time.Duration
	mayHang    bool // and then no answer is no fault
	owed       *owedToClient
	over       bool
	leaves     bool // has said so
	sent       chan struct{}
	heard      int // bytes
	transcript []string
}

// send writes the frames in the background.
func (k *talk) send(frames []frame) {
	var out []byte
	for _, f := range frames {
		k.leaves = k.leaves || f.kind == wire.MsgTerminate
		out = append(out, f.bytes()...)
	}
	k.sent = make(chan struct{})
	go func() {
		defer close(k.sent)
		_, _ = k.Write(out) // the reader finds out
	}()
}

// listen takes what comes until so many requests are left.
func (k *talk) listen(left int) error {
	defer func() {
		if k.over {
			k.Close()
		}
		<-k.sent
	}()
	for begun := false; len(k.owed.requests) > left || k.owed.loose; begun = true {
		patience := k.patience
		if k.owed.loose && begun {
			patience = silence
		}
		kind, body, err := k.hear(patience)
		var ne net.Error
		switch {
		case err == nil:
		case asNetError(err, &ne) && ne.Timeout():
			if k.owed.loose && begun {
				return nil
			}
			k.over = true
			if !k.mayHang {
				return errors.New("hangs")
			}
			return nil
		default:
			k.over = true
			// In the middle of a message nothing can be said, nor to one that has not
			// read what was said before.
			if err == io.EOF && !k.owed.ended && !k.leaves && k.heard < 64<<10 {
				return errors.New("the session ends without a word")
			}
			return nil
		}
		if k.heard += 5 + len(body); len(k.transcript) < 50 {
			k.transcript = append(k.transcript, describe(kind, body))
		}
		if err := k.owed.take(kind, body); err != nil {
			k.over = true
			return err
		}
	}
	return nil
}

// hear reads one message. One that is announced and does not come takes no memory.
func (k *talk) hear(patience time.Duration) (byte, []byte, error) {
	if err := k.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(k.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int64(frameSize(head[:])) - 5
	body, err := io.ReadAll(io.LimitReader(k.r, size))
	if err == nil && int64(len(body)) < size {
		err = io.ErrUnexpectedEOF
	}
	return head[0], body, err
}

func frameSize(head []byte) int { return int(binary.BigEndian.Uint32(head[1:])) + 1 }

// enter logs in; in is false when that was refused, or nobody answers.
func (k *talk) enter(user string, params []string) (in bool, err error) {
	if _, err := k.Write(startupPacket(user, "app", params...)); err != nil {
		return false, err
	}
	for {
		kind, body, err := k.hear(k.patience)
		switch {
		case err != nil && k.mayHang:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("login: %w", err)
		case kind == wire.MsgErrorResponse:
			if wire.Field(body, 'V') == "ERROR" || len(wire.Field(body, 'C')) != 5 {
				return false, errors.New("login: " + describe(kind, body))
			}
			return false, nil
		case kind == wire.MsgReadyForQuery:
			return true, nil
		}
	}
}
