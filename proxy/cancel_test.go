package proxy_test

import (
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
)

// A statement ends while its cancel request is on the way. What the client sends next, on the same
// connection, is not hit by it.
func TestCancelLate(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{}).Primary().Addr()
	for _, test := range []struct {
		name, ends string
		mode       proxy.Mode
		timeout    time.Duration
	}{
		{"timeout", "SELECT pg_sleep(0.8)", 0, 500 * time.Millisecond},
		{"timeout in session mode", "SELECT pg_sleep(0.8)", proxy.ModeSession, 500 * time.Millisecond},
		{"request", "SELECT pg_sleep(0.8)", 0, 0},
		{"request in session mode", "SELECT pg_sleep(0.8)", proxy.ModeSession, 0},
	} {
		for _, driver := range []proxy.Driver{proxy.DriverLoop, proxy.DriverGoroutine} {
			t.Run(test.name, func(t *testing.T) {
				fp := faultproxy.Start(t, faultproxy.Options{Target: server})
				hold := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.Hold()})
				o := fixtureOptions{size: 1, mode: test.mode, driver: driver, nodes: []string{fp.Addr()}}
				if test.timeout > 0 {
					o.user = func(u *proxy.UserPolicy) { u.Timeouts.Query = test.timeout }
				}
				c := start(t, o).connect("&default_query_exec_mode=simple_protocol")
				if test.mode != proxy.ModeSession {
					exec(t, c, "BEGIN")
				}
				if test.timeout == 0 {
					go func() {
						<-time.After(200 * time.Millisecond)
						_ = c.PgConn().CancelRequest(ctx10(t)) // it is held
					}()
				}
				exec(t, c, test.ends)
				<-hold.Fired()
				go func() {
					<-time.After(200 * time.Millisecond)
					hold.Release()
				}()
				if _, err := c.Exec(ctx10(t), "SELECT pg_sleep(0.4)"); err != nil {
					t.Errorf("what came behind it: %v", err)
				}
				if test.mode != proxy.ModeSession {
					exec(t, c, "COMMIT")
				}
			})
		}
	}
}
