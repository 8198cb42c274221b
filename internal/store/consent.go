package store

import "context"

type researchKey struct{}

// ForResearch hides what nobody consented to use for research: under the
// context, scans with consent_research false and decodings of them are not
// found. A scan that nothing was said of is.
func ForResearch(ctx context.Context) context.Context {
	return context.WithValue(ctx, researchKey{}, true)
}

func forResearch(ctx context.Context) bool { return ctx.Value(researchKey{}) != nil }

// consented goes on with a condition: and the scan of the id in this column may
// be seen. Not EXISTS, for which Postgres may read all scans.
func consented(ctx context.Context, column string) string {
	if !forResearch(ctx) {
		return ""
	}
	return ` AND (SELECT consent.metadata ->> 'consent_research' FROM scans consent
		WHERE consent.site_id = @site AND consent.id = ` + column + `) IS DISTINCT FROM 'false'`
}

// decodingConsented is consented for all scans of the decoding d.
func decodingConsented(ctx context.Context) string {
	if !forResearch(ctx) {
		return ""
	}
	return ` AND NOT EXISTS (
		SELECT FROM decoding_runs r JOIN scans s ON s.site_id = r.site_id AND s.id = r.scan_id
		WHERE r.site_id = @site AND r.decoding_id = d.id AND s.metadata ->> 'consent_research' = 'false')`
}
