package dashtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// list follows a path of keys; elements of lists are each followed.
func list(v any, path string) (all []any) {
	if path == "" {
		return []any{v}
	}
	key, rest, _ := strings.Cut(path, ".")
	next := v.(map[string]any)[key]
	if in, ok := next.([]any); ok {
		for _, e := range in {
			all = append(all, list(e, rest)...)
		}
		return all
	}
	return list(next, rest)
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// live waits until the page hears.
func (b *tab) live() {
	b.t.Helper()
	b.until(`document.querySelector("#link").dataset.state`, `"live"`)
}

// equalsAPI compares what each region shows with what the API says.
func (b *tab) equalsAPI() {
	t := b.t
	t.Helper()
	status := answer(t, b.url, "status")
	b.until(`[...document.querySelectorAll(".shard")].map(s => s.dataset.shard + " " + s.dataset.class)`, asJSON(t, join(list(status, "databases.shards.name"), list(status, "databases.shards.class"))))
	b.is(`[...document.querySelectorAll(".node")].map(s => s.dataset.address + " " + s.dataset.health)`,
		join(list(status, "databases.shards.nodes.address"), list(status, "databases.shards.nodes.health")))
	b.is(`[...document.querySelectorAll(".node")].map(s => /takes writes/.test(s.title))`, list(status, "databases.shards.nodes.writes"))
	b.is(`document.querySelector("#verdict").className`, "verdict "+list(status, "verdict.class")[0].(string))
	b.is(`document.querySelectorAll("#trouble .reasons li").length`, len(list(status, "verdict.reasons")))
	var pools []string
	for _, p := range list(status, "pools") {
		p := p.(map[string]any)
		pools = append(pools, fmt.Sprintf("%v %v %v %v", p["database"], p["user"], p["shard"], p["node"]))
	}
	var shown []string
	if err := json.Unmarshal([]byte(b.eval(`[...document.querySelectorAll("#pools tbody tr")].map(r => [...r.cells].slice(0, 4).map(c => c.textContent).join(" "))`)), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != min(len(pools), 100) {
		t.Errorf("%d of %d pools are shown", len(shown), len(pools))
	}
	sort.Strings(pools)
	for _, p := range shown {
		if i := sort.SearchStrings(pools, p); i == len(pools) || pools[i] != p {
			t.Errorf("the pool %s is shown, and is none", p)
		}
	}
	slots := answer(t, b.url, "slots")
	b.until(`[...document.querySelectorAll(".balance button")].map(r => r.querySelector(".name").textContent)`, asJSON(t, orEmpty(list(slots, "databases.shards.name"))))
	b.is(`[...document.querySelectorAll(".balance .count")].map(r => parseInt(r.textContent.replaceAll(",", "")))`, orEmpty(list(slots, "databases.shards.slots")))
	b.until(`[...document.querySelectorAll("#events tbody tr")].map(r => r.cells[4].textContent)`, asJSON(t, orEmpty(list(answer(t, b.url, "events"), "events.text"))))
	moves := answer(t, b.url, "moves")
	var going, ended []string
	for _, m := range list(moves, "databases.moves") {
		id := fmt.Sprint(m.(map[string]any)["id"])
		if m.(map[string]any)["ended"].(bool) {
			ended = append([]string{id}, ended...)
		} else {
			going = append(going, id)
		}
	}
	b.is(`[...document.querySelectorAll(".move .what")].map(m => m.textContent.split(":")[0])`, orEmpty(going))
	b.is(`[...document.querySelectorAll("#moves .ended tbody tr")].map(r => r.cells[0].textContent)`, orEmpty(ended))
	b.is(`[...document.querySelectorAll("#proxies tbody tr")].map(r => r.cells[1].textContent.split(" ")[0] + " " + r.cells[4].textContent)`,
		orEmpty(join(list(answer(t, b.url, "proxies"), "databases.proxies.name"), list(answer(t, b.url, "proxies"), "databases.proxies.epoch"))))
	b.is(`[...document.querySelectorAll("#doubts tbody tr")].map(r => r.cells[2].textContent)`, orEmpty(list(answer(t, b.url, "doubts"), "doubts.name")))
}

func join(a, b []any) (all []string) {
	for i := range a {
		all = append(all, fmt.Sprintf("%v %v", a[i], b[i]))
	}
	return all
}

func orEmpty[T any](in []T) []T { return append([]T{}, in...) }

// TestManyShards: 64 shards and 4,096 slots, wide and narrow, dark and light,
// without a mouse; a bar only grows.
func TestManyShards(t *testing.T) {
	m := &made{started: time.Now().Add(-26 * time.Hour), copied: 300_000}
	address := openMade(t, m)
	browser := openBrowser(t)
	wide := openTab(t, browser, address, 1440, 900)
	wide.live()
	wide.until(`document.querySelectorAll(".shard").length`, "65")
	wide.equalsAPI()
	wide.fits()
	// What is wrong is told by more than its colour.
	wide.is(`document.querySelector('[data-shard="s03"] h4').innerText.replace(/\s+/g, " ").trim()`, "\u2715 s03 no primary")
	wide.is(`document.querySelector('[data-address="10.0.20.3:5432"] .figures').textContent.split(",")[0]`, "lagging")
	wide.is(`document.querySelector("#trouble .held tbody tr").innerText.split("\t").slice(0, 2)`, []string{"shard s03 of shop", "no primary"})
	wide.is(`[...document.querySelectorAll(".plot .line")].filter(l => (l.getAttribute("d").match(/M/g) ?? []).length >= 2).length`, 11) // broken where nothing is known
	wide.is(`document.querySelector('[data-key="Errors"] .top').textContent`, "at most 160/s")
	wide.statements()
	wide.bars(m)
	wide.keyboard()
	wide.screenshot("many-wide-light")
	wide.quiet(false)
	narrow := openTab(t, browser, address, 390, 800, dark())
	narrow.live()
	narrow.until(`document.querySelectorAll(".shard").length`, "65")
	narrow.fits()
	narrow.screenshot("many-narrow-dark")
	narrow.quiet(false)
}

// statements: those of the contract, by each order, as text.
func (b *tab) statements() {
	b.t.Helper()
	plain := strings.NewReplacer("<", "{", ">", "}") // JSON would write them otherwise than the browser does
	const inPage = `.replaceAll("<", "{").replaceAll(">", "}")`
	all := list(answer(b.t, b.url, "statements"), "databases.statements")
	for _, by := range []string{"p99_seconds", "calls_total", "several_total", "errors_total", "seconds_total"} {
		value := func(s any) float64 { n, _ := s.(map[string]any)[by].(float64); return n }
		sorted := slices.DeleteFunc(slices.Clone(all), func(s any) bool { return value(s) == 0 })
		sort.SliceStable(sorted, func(i, j int) bool { return value(sorted[i]) > value(sorted[j]) })
		var want []string
		for _, s := range sorted[:min(len(sorted), 10)] {
			want = append(want, plain.Replace(fmt.Sprintf("%v %v", s.(map[string]any)["fingerprint"], s.(map[string]any)["query"])))
		}
		b.run(chromedp.Evaluate(fmt.Sprintf(`{ const s = document.querySelector("#statements select"); s.value = %q; s.dispatchEvent(new Event("change")) }`, by), nil))
		b.until(`[...document.querySelectorAll("#statements .body tbody tr")].map(r => r.cells[10].textContent + " " + r.cells[11].textContent`+inPage+`)`, asJSON(b.t, orEmpty(want)))
	}
	b.is(`[...document.querySelectorAll("#statements div.hot tbody tr")].map(r => [...r.cells].map(c => c.textContent).join(" "))`, []string{"shop 655 s55 about 120/s 37 %", "shop 12 s40 about 13/s 4 %"})
	b.is(`[...document.querySelectorAll("#statements .errors tbody tr")].map(r => r.cells[1].textContent + " " + r.cells[2].textContent + " " + r.cells[5].textContent`+inPage+`)`,
		[]string{"23505 server ", `57P03 proxy no primary within the hold timeout {b}"..."{/b}`})
	b.is(`document.querySelectorAll("#statements i, #statements b").length`, 0) // texts are no markup
}

// bars: rows are copied, then copied anew; the bar stays where it was.
func (b *tab) bars(m *made) {
	b.t.Helper()
	for _, step := range []struct {
		copied int64
		bar    string
	}{{300_000, "0.26"}, {500_000, "0.4"}, {100_000, "0.4"}, {600_000, "0.47"}} {
		m.setCopied(step.copied)
		b.until(fmt.Sprintf(`[document.querySelector("progress").value, document.querySelector(".move .rows").textContent.startsWith(%q)]`, thousands(step.copied)), "["+step.bar+",true]")
	}
}

func thousands(n int64) string { return fmt.Sprintf("%d,000 of", n/1000) }

// keyboard reaches everything that can be pointed at.
func (b *tab) keyboard() {
	t := b.t
	t.Helper()
	owners := list(answer(t, b.url, "slots"), "databases.owners")
	owner := func(slot float64) string {
		for _, o := range owners {
			if o := o.(map[string]any); o["from"].(float64) <= slot && slot <= o["to"].(float64) {
				return o["shard"].(string)
			}
		}
		return ""
	}
	b.run(chromedp.Evaluate(`document.activeElement.blur(), scrollTo(0, 0)`, nil))
	seen := map[string]bool{}
	for range 30 {
		b.run(chromedp.KeyEvent(kb.Tab))
		at := strings.Trim(b.eval(`document.activeElement.tagName + " " + (document.activeElement.className || "")`), `"`)
		seen[strings.TrimSpace(at)] = true
		switch at {
		case "CANVAS ":
			b.run(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowDown))
			b.is(`document.querySelector(".map .said").textContent.split(",")[0]`, "Slot 64: "+owner(64))
		case "FIGURE plot":
			b.run(chromedp.KeyEvent(kb.ArrowLeft))
		case "BUTTON ":
			if !seen["pressed"] {
				seen["pressed"] = true
				b.run(chromedp.KeyEvent(kb.Enter))
				b.until(`document.querySelector(".balance button").getAttribute("aria-pressed")`, `"true"`)
				b.run(chromedp.KeyEvent(kb.Enter))
				b.until(`document.querySelector(".balance button").getAttribute("aria-pressed")`, `"false"`)
				b.run(chromedp.Evaluate(`[...document.querySelectorAll(".balance button")].at(-1).focus()`, nil)) // the others are alike
			}
		}
		b.is(`[document.activeElement.tagName, document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle !== "none" || document.activeElement === document.body].at(-1)`, true) // one sees where one is
	}
	for _, want := range []string{"A skip", "CANVAS", "FIGURE plot", "SELECT", "BUTTON", "SUMMARY", "DIV scroll", "A"} {
		if !seen[want] {
			t.Errorf("Tab does not come to %s: %v", want, seen)
		}
	}
}
