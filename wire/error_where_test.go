package wire_test

import (
	"testing"

	"shardproxy/wire"
)

func TestErrorWhere(t *testing.T) {
	e := wire.Errorf("22P04", "m")
	e.Where = "COPY t, line 3"
	body := e.Append(nil)[5:]
	if got := wire.ReadError(body); got.Where != e.Where || wire.Field(body, 'W') != e.Where {
		t.Errorf("the context is %q", got.Where)
	}
}
