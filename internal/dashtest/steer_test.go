package dashtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/jackc/pgx/v5"
)

// loggedIn has the browser log in when it is asked for a password, as a person does.
func loggedIn(user, password string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		chromedp.ListenTarget(ctx, func(event any) {
			switch e := event.(type) {
			case *fetch.EventRequestPaused:
				go func() { _ = chromedp.Run(ctx, fetch.ContinueRequest(e.RequestID)) }() // the tab may have gone
			case *fetch.EventAuthRequired:
				go func() {
					_ = chromedp.Run(ctx, fetch.ContinueWithAuth(e.RequestID, &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: user, Password: password}))
				}()
			}
		})
		return fetch.Enable().WithHandleAuthRequests(true).Do(ctx)
	})
}

// buttons are the orders that the page offers now.
const buttons = `[...document.querySelectorAll("#moves button[data-order]")].filter(b => b.checkVisibility()).map(b => b.dataset.order)`

func (b *tab) click(selector string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector(%q)?.checkVisibility() === true && !document.querySelector(%q).disabled`, selector, selector), "true")
	b.run(chromedp.Click(selector, chromedp.ByQuery))
}

// window leaves a picture of what is in the window, if somebody wants it: a dialog is there and nowhere else.
func (b *tab) window(name string) {
	b.t.Helper()
	folder := os.Getenv("SHARDPROXY_TEST_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture []byte
	b.run(chromedp.CaptureScreenshot(&picture))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// said waits for what came of an order.
func (b *tab) said(want string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector("#moves .answer .text").textContent.includes(%q) && !document.querySelector("#confirm").open`, want), "true")
}

// confirmed reads what an order would do, and gives it.
func (b *tab) confirmed(what string) {
	b.t.Helper()
	b.until(`document.querySelector("#confirm").open`, "true")
	b.is(fmt.Sprintf(`[document.querySelector("#confirm .what").textContent.includes(%q), document.activeElement.className]`, what), []any{true, "cancel"})
	b.click("#confirm .do")
}

// quietBut is quiet, but for answers of one status, of which there must be one.
func (b *tab) quietBut(status string) {
	b.t.Helper()
	b.mu.Lock()
	there := len(b.problems)
	b.problems = slices.DeleteFunc(b.problems, func(p string) bool { return strings.Contains(p, "status of "+status) })
	seen := there - len(b.problems)
	b.mu.Unlock()
	if seen == 0 {
		b.t.Errorf("no answer was %s", status)
	}
	b.quiet(false)
}

// TestSteer: an admin user plans, begins, pauses, resumes, gives up, rolls back
// and completes moves from the page, with mouse and with keys; the log says who;
// a monitor user sees no such thing.
func TestSteer(t *testing.T) {
	s := openStageOf(t, ", admin_users: [dba], monitor_users: [watch]", "  - {name: dba, password: dbapw}\n  - {name: watch, password: watchpw}\n")
	s.fill()
	browser, address := openBrowser(t), "http://"+s.admin+"/"
	b := openTab(t, browser, address, 1280, 800, loggedIn("dba", "dbapw"))
	b.live()
	b.until(`document.querySelectorAll("#proxies tbody tr").length`, "1")
	b.until(buttons, `["plan"]`)
	home := s.shards[0].Primary()
	slot := func(i int) string {
		return home.Value("app", fmt.Sprintf("SELECT slot FROM shardproxy.slots WHERE shard = 's0' ORDER BY slot OFFSET %d LIMIT 1", i))
	}

	// By keys alone: a plan of two slots, which is shown, and begun, reversible.
	first, second := slot(0), slot(1)
	b.run(chromedp.Focus(`[data-order="plan"]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	b.until(`[document.querySelector("#planner").open, document.querySelector("#planner .start").disabled]`, `[true,true]`)
	b.run(chromedp.SetValue(`[name="kind"]`, "slots", chromedp.ByQuery), chromedp.Evaluate(`document.querySelector('[name="kind"]').dispatchEvent(new Event("change", {bubbles: true}))`, nil))
	b.is(`[...document.querySelectorAll("#planner label")].filter(l => l.checkVisibility()).length`, 4)
	b.run(chromedp.Focus(`[name="slots"]`, chromedp.ByQuery), chromedp.KeyEvent("99999"), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#planner .error").checkVisibility() && document.querySelector("#planner .error").textContent.includes("there is no slot 99999")`, "true")
	b.quietBut("400")
	b.run(chromedp.Evaluate(`document.querySelector('[name="slots"]').value = ""`, nil), chromedp.Focus(`[name="slots"]`, chromedp.ByQuery), chromedp.KeyEvent(first+","+second),
		chromedp.SetValue(`[name="shard"]`, "s1", chromedp.ByQuery), chromedp.Focus(`[name="reversible"]`, chromedp.ByQuery), chromedp.KeyEvent(" "), chromedp.KeyEvent(kb.Enter))
	b.until(`/^1 move: 2 slots with about/.test(document.querySelector("#planner .summary").textContent)`, "true")
	b.is(`[document.querySelector("#planner .start").disabled, document.querySelector("#planner .error").checkVisibility(), document.querySelector("#planner .blockers").checkVisibility()]`, []bool{false, false, false})
	b.window("steer-plan")
	b.fits()
	b.run(chromedp.Focus("#planner .start", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#confirm").open`, "true")
	b.window("steer-confirm")
	b.is(`document.querySelector("#confirm h2").textContent`, "Begin this plan for app?")
	b.run(chromedp.KeyEvent(kb.Escape))
	b.until(`document.querySelector("#confirm").open`, "false")
	if n := home.Value("app", "SELECT count(*) FROM shardproxy.moves"); n != "0" {
		t.Fatalf("%s moves without an order", n)
	}
	b.click(`[data-order="plan"]`)
	b.run(chromedp.Focus(`#planner [type="submit"]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	b.click("#planner .start")
	b.confirmed("2 slots with about")
	b.said("Begun: 1 move with 2 slots in app")

	// It can be rolled back, and is.
	b.until(buttons, `["plan","pause","rollback","complete"]`)
	b.screenshot("steer-reversible")
	b.fits()
	b.click(`[data-order="pause"]`)
	b.confirmed("No move comes to a further phase")
	b.said("app: paused: 1")
	b.until(buttons, `["plan","resume","rollback","complete"]`)
	b.click(`[data-order="resume"]`)
	b.confirmed("come to their next phases")
	b.said("app: resumed: 1")
	b.click(`[data-order="rollback"]`)
	b.confirmed("2 slots return from s1 to s0")
	b.said("to be rolled back: 1")
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "1")
	b.until(buttons, `["plan"]`)
	if owner := home.Value("app", "SELECT shard FROM shardproxy.slots WHERE slot = "+first); owner != "s0" {
		t.Error("what was rolled back is on", owner)
	}
	b.plansSlot(first, true)
	b.until(buttons, `["plan","pause","rollback","complete"]`)
	b.click(`[data-order="complete"]`)
	b.confirmed("cannot be rolled back any more")
	b.said("to be completed: 1")
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "2")

	// A plan that is no longer the one that was shown is not begun.
	b.click(`[data-order="plan"]`)
	b.run(chromedp.Focus(`#planner [type="submit"]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector("#planner .summary").textContent`, `"Nothing to do: no slot would move."`)
	b.is(`document.querySelector("#planner .start").disabled`, true)
	b.run(chromedp.Evaluate(`document.querySelector('[name="slots"]').value = ""`, nil), chromedp.Focus(`[name="slots"]`, chromedp.ByQuery), chromedp.KeyEvent(second), chromedp.KeyEvent(kb.Enter))
	b.until(`/^1 move: 1 slot/.test(document.querySelector("#planner .summary").textContent)`, "true")
	s.call("rebalance", "start", "-c", s.file, "--slots", slot(5), "--to", "s1")
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "3")
	b.click("#planner .start")
	b.confirmed("1 slot with about")
	b.until(`document.querySelector("#confirm .error").checkVisibility() && document.querySelector("#confirm .error").textContent.includes("no longer the one")`, "true")
	b.click("#confirm .cancel")
	b.quietBut("409")

	// One that a client's transaction keeps from its first phases is given up.
	c, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"BEGIN", "INSERT INTO customers SELECT i, 'x' FROM generate_series(5001, 5050) i"} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	b.plansSlot(slot(7), false)
	b.until(buttons, `["plan","pause","abort"]`)
	b.click(`[data-order="abort"]`)
	b.confirmed("rows stay where they were")
	b.said("given up: 1")
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "4")

	log, err := os.ReadFile(filepath.Join(filepath.Dir(s.file), "proxy.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{`msg="admin order" user=dba`, `command="moves start"`, `command="moves pause"`, `command="moves resume"`, `command="moves rollback"`, `command="moves complete"`, `msg="admin order failed" user=dba`} {
		if !strings.Contains(string(log), said) {
			t.Errorf("the log lacks %s", said)
		}
	}
	if strings.Contains(string(log), "dbapw") {
		t.Error("the log has a password")
	}

	// A monitor user, in a browser of its own, looks, and has nothing to press.
	w := openTab(t, openBrowser(t), address, 1280, 800, loggedIn("watch", "watchpw"))
	w.live()
	w.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "4")
	w.is(buttons, []string{})
	w.is(`document.querySelector("#moves .steer").checkVisibility()`, false)
	w.quiet(false)
	var code int
	w.run(chromedp.Evaluate(`fetch("api/v1/moves/pause", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}).then(r => r.status)`, &code, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if code != 403 {
		t.Errorf("an order of a monitor user: %d", code)
	}
	w.quietBut("403")

	// The token goes with the process; the page gets the new one by itself.
	if err := s.proxy.Stop(); err != nil {
		t.Fatal(err)
	}
	b.until(`document.querySelector("#link").dataset.state`, `"stale"`)
	s.start()
	b.live()
	b.quiet(true)
	b.run(chromedp.Sleep(300 * time.Millisecond))
	b.plansSlot(slot(9), false)
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].length`, "5")
	b.run(chromedp.EmulateViewport(390, 800))
	b.fits()
	b.click(`[data-order="plan"]`)
	b.is(`(r => [r.left >= 0, r.right <= innerWidth, r.bottom <= innerHeight])(document.querySelector("#planner").getBoundingClientRect())`, []bool{true, true, true})
	b.window("steer-narrow")
	b.quiet(false)
}

// plansSlot plans that a slot goes to s1, and begins that.
func (b *tab) plansSlot(slot string, reversible bool) {
	b.t.Helper()
	b.click(`[data-order="plan"]`)
	b.run(chromedp.SetValue(`[name="kind"]`, "slots", chromedp.ByQuery),
		chromedp.Evaluate(fmt.Sprintf(`document.querySelector('[name="kind"]').dispatchEvent(new Event("change", {bubbles: true})); document.querySelector('[name="slots"]').value = %q; document.querySelector('[name="shard"]').value = "s1"; document.querySelector('[name="reversible"]').checked = %t`, slot, reversible), nil))
	b.click(`#planner [type="submit"]`)
	b.click("#planner .start")
	b.confirmed("1 slot with about")
	b.said("Begun: 1 move with 1 slot in app")
}
