// Package dashtest looks at the dashboard in a real browser: Chromium, headless,
// as scripts/need-browser.sh installs it. One part shows it a made-up proxy of
// 64 shards, the other the real program before real servers.
//
// There is nothing in it but tests. With SHARDPROXY_TEST_SCREENSHOTS set to a
// folder they leave pictures there, for people to look at.
package dashtest
