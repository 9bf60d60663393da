package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// livePath is where the events are.
const livePath = "/api/v1/live"

// Bounds of /api/v1/live.
const (
	viewersMax  = 16
	liveEach    = time.Second            // between two pictures while nothing happens
	liveLook    = 200 * time.Millisecond // between two looks whether something did
	liveTimeout = 10 * time.Second       // for a viewer to take what is sent
)

// live sends pictures to those who look, as server-sent events.
type live struct {
	looks   *looks
	access  *access
	viewers chan struct{}      // one entry for each
	ended   <-chan struct{}    // closed when no more is sent
	end     context.CancelFunc // closes ended
}

func newLive(l *looks, a *access) *live {
	ctx, cancel := context.WithCancel(context.Background())
	return &live{looks: l, access: a, viewers: make(chan struct{}, viewersMax), ended: ctx.Done(), end: cancel}
}

// ServeHTTP implements http.Handler. A viewer gets everything at once, then the
// status each second, or as soon as a node or a gate changes, and of the rest
// what has changed. The event "end" says that the server ends.
func (v *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case v.viewers <- struct{}{}:
		defer func() { <-v.viewers }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d pages are open already", viewersMax), http.StatusServiceUnavailable)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // it would end the request
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // of proxies before this
	s := &stream{live: v, rc: rc, w: w, sent: map[string][]byte{}, samples: v.looks.history.samples()}
	if s.send(true) != nil {
		return
	}
	tick := time.NewTicker(liveLook)
	defer tick.Stop()
	// Who was let in may be no operator any more behind a reload: the page asks
	// anew, and is asked who it is.
	for v.access.stillLet(r) {
		select {
		case <-r.Context().Done():
			return
		case <-v.ended:
			_ = s.write([]byte("event: end\ndata: {}\n\n"))
			return
		case <-tick.C:
			if s.send(false) != nil {
				return
			}
		}
	}
}

// stream is what one viewer was sent.
type stream struct {
	live    *live
	rc      *http.ResponseController
	w       http.ResponseWriter
	sent    map[string][]byte
	alarm   uint64
	at      time.Time // of the last status
	samples int
}

// send sends what is new, if it is time.
func (s *stream) send(first bool) error {
	p, err := s.live.looks.take()
	if err != nil {
		s.live.looks.opt.Logger.Error("status as JSON failed", "error", err)
		return err
	}
	now := time.Now()
	if !first && p.alarm == s.alarm && now.Sub(s.at) < liveEach-liveLook/2 {
		return nil
	}
	s.alarm, s.at = p.alarm, now
	var b bytes.Buffer
	for _, f := range p.frames {
		if f.name == "status" || !bytes.Equal(s.sent[f.name], f.data) {
			s.sent[f.name] = f.data
			fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", f.name, f.data)
		}
	}
	if err := s.sample(&b); err != nil {
		return err
	}
	return s.write(b.Bytes())
}

// sample adds the samples taken since the last time.
func (s *stream) sample(b *bytes.Buffer) error {
	h := s.live.looks.history
	taken := h.samples()
	if taken == s.samples {
		return nil
	}
	data, err := json.Marshal(h.page(s.samples))
	if err != nil {
		return err
	}
	s.samples = taken
	fmt.Fprintf(b, "event: history\ndata: %s\n\n", data)
	return nil
}

func (s *stream) write(b []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(liveTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.rc.Flush()
}
