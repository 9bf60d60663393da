package main

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"shardproxy/admin"
)

// The bounds of what is kept of what happened.
const (
	eventsKept     = 1000
	eventDetailMax = 2000 // bytes
)

// eventLog keeps the last things that happened. Safe for concurrent use.
type eventLog struct {
	mu   sync.Mutex
	last int64
	ring []admin.Event // the next is put at last % eventsKept, once it is full
}

func (l *eventLog) add(e admin.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := int(l.last % eventsKept)
	l.last++
	e.ID = l.last
	if len(l.ring) < eventsKept {
		l.ring = append(l.ring, e)
		return
	}
	l.ring[at] = e
}

// list returns them, the oldest first.
func (l *eventLog) list() []admin.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := 0
	if len(l.ring) == eventsKept {
		at = int(l.last % eventsKept)
	}
	return append(slices.Clone(l.ring[at:]), l.ring[:at]...)
}

// eventHandler passes records on to the log, and keeps those that are events: of level info and above, whatever the log's own level is. What
// concerns one client or its connection is none, unless it is an error: a thousand clients that lose their connections would leave nothing of the failover.
type eventHandler struct {
	next   slog.Handler
	events *eventLog
	attrs  []slog.Attr // of With
	groups []string
}

// Enabled implements slog.Handler.
func (h *eventHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		if e, is := h.event(&r); is {
			h.events.add(e)
		}
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.next = h.next.WithAttrs(attrs)
	next.attrs = append(slices.Clone(h.attrs), h.named(attrs)...)
	return &next
}

// WithGroup implements slog.Handler.
func (h *eventHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.next = h.next.WithGroup(name)
	next.groups = append(slices.Clone(h.groups), name)
	return &next
}

// named puts the groups in front of the names.
func (h *eventHandler) named(attrs []slog.Attr) []slog.Attr {
	if len(h.groups) == 0 {
		return attrs
	}
	all := slices.Clone(attrs)
	for i := range all {
		all[i].Key = strings.Join(h.groups, ".") + "." + all[i].Key
	}
	return all
}

// event returns the record as an event; ok is false when it is none.
func (h *eventHandler) event(r *slog.Record) (e admin.Event, ok bool) {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, h.named([]slog.Attr{a})...)
		return true
	})
	e = admin.Event{At: r.Time, Level: r.Level.String(), What: r.Message}
	ofClient, ofConsole := false, false
	var detail strings.Builder
	for _, a := range attrs {
		text := a.Value.Resolve().String()
		switch a.Key {
		case "database":
			e.Database = text
			continue
		case "shard":
			e.Shard = text
			continue
		case "node":
			e.Node = text
			continue
		case "session", "client", "pid":
			ofClient = true
		case "console":
			ofConsole = true
		}
		if detail.Len() > 0 {
			detail.WriteByte(' ')
		}
		if text == "" || strings.ContainsAny(text, " \"=\n\t") {
			text = strconv.Quote(text)
		}
		detail.WriteString(a.Key + "=" + text)
	}
	if e.Detail = detail.String(); len(e.Detail) > eventDetailMax {
		e.Detail = strings.ToValidUTF8(e.Detail[:eventDetailMax], "") + "..."
	}
	return e, !ofClient || ofConsole || r.Level >= slog.LevelError
}
