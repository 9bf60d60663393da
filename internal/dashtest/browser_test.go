package dashtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserPath is where the browser is.
func browserPath(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no Chromium: run scripts/need-browser.sh, or as root: apt-get install chromium")
	return ""
}

// openBrowser starts a browser, which ends with the test.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browserPath(t)), chromedp.NoSandbox,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("font-render-hinting", "none"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	allocated, free := chromedp.NewExecAllocator(ctx, options...)
	browser, end := chromedp.NewContext(allocated)
	t.Cleanup(func() {
		_ = chromedp.Cancel(browser)
		end()
		free()
		cancel()
	})
	if err := chromedp.Run(browser); err != nil {
		t.Fatal(err)
	}
	return browser
}

// tab is one page of the browser.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	// mu guards what follows.
	mu       sync.Mutex
	problems []string
	foreign  []string
}

// openTab opens a page of some width.
func openTab(t *testing.T, browser context.Context, address string, width, height int64, more ...chromedp.Action) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(browser)
	b := &tab{t: t, ctx: ctx, url: address}
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); end() })
	chromedp.ListenTarget(ctx, b.hear)
	actions := append([]chromedp.Action{log.Enable(), runtime.Enable(), network.Enable(), chromedp.EmulateViewport(width, height)}, more...)
	b.run(append(actions, chromedp.Navigate(address), page.BringToFront())...)
	return b
}

// dark has the page drawn for a dark room.
func dark() chromedp.Action {
	return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}})
}

// hear notes what the browser complains of, and requests to elsewhere.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			said, _ := json.Marshal(e.Args)
			b.problems = append(b.problems, "console: "+string(said))
		}
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, "exception: "+e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			b.problems = append(b.problems, fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if own, _ := url.Parse(b.url); err != nil || u.Host != own.Host {
			b.foreign = append(b.foreign, e.Request.URL)
		}
	}
}

// quiet reports what the browser has complained of since the last time. What
// is expected of an outage is left out when one was made.
func (b *tab) quiet(outage bool) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		if outage && (strings.Contains(p, "net::ERR_CONNECTION_REFUSED") || strings.Contains(p, "net::ERR_INCOMPLETE_CHUNKED_ENCODING") || strings.Contains(p, "net::ERR_CONNECTION_RESET")) {
			continue
		}
		b.t.Error(p)
	}
	for _, u := range b.foreign {
		b.t.Errorf("a request to elsewhere: %s", u)
	}
	b.problems, b.foreign = nil, nil
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what a JavaScript expression is, as JSON.
func (b *tab) eval(script string) string {
	b.t.Helper()
	var out string
	b.run(chromedp.Evaluate("JSON.stringify("+script+")", &out))
	return out
}

// until waits until an expression is what is wanted.
func (b *tab) until(script, want string) {
	b.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		got := b.eval(script)
		if got == want {
			return
		}
		select {
		case <-deadline.C:
			b.quiet(false)
			b.t.Fatalf("%s is\n%s, want\n%s", script, got, want)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// is compares an expression with a value once.
func (b *tab) is(script string, want any) {
	b.t.Helper()
	data, err := json.Marshal(want)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := b.eval(script); got != string(data) {
		b.t.Errorf("%s is\n%s, want\n%s", script, got, data)
	}
}

// fits reports what is wider than the window.
func (b *tab) fits() {
	b.t.Helper()
	b.is(`[document.documentElement.scrollWidth > innerWidth ? "wider by " + (document.documentElement.scrollWidth - innerWidth) + ": " + [...document.querySelectorAll("main *")]`+
		`.filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll")).slice(0, 5).map(e => e.tagName + "." + e.className).join(" ") : "fits"]`, []string{"fits"})
}

// screenshot leaves a picture, if somebody wants it.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	folder := os.Getenv("SHARDPROXY_TEST_SCREENSHOTS")
	if folder == "" {
		return
	}
	var picture []byte
	b.run(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		picture, err = page.CaptureScreenshot().WithCaptureBeyondViewport(true).Do(ctx)
		return err
	}), chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// answer reads a part of the contract.
func answer(t *testing.T, address, part string) map[string]any {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", address+"api/v1/"+part, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%s: %s %v", part, response.Status, err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
