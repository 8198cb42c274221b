package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
)

// Kinds of notices.
const (
	NoticeScored    = "scan.scored"
	NoticeRefused   = "scan.refused"
	NoticeFailed    = "scan.failed"
	NoticeCancelled = "scan.cancelled"
	// NoticeAccepted: a reader accepted the result, or amended it with a comment:
	// it may now be filed.
	NoticeAccepted = "result.accepted"
	// NoticeWithdrawn: a result that was announced counts no longer, because a
	// reader rejected it, what it was computed with was corrected, or the scan
	// was erased.
	NoticeWithdrawn = "result.withdrawn"
)

// NoticeKinds lists them all.
var NoticeKinds = []string{NoticeScored, NoticeRefused, NoticeFailed, NoticeCancelled, NoticeAccepted, NoticeWithdrawn}

// Notice tells what became of a scan. It holds nothing of the patient: the
// receiver asks for the scan with its own key.
type Notice struct {
	Type string     `json:"type"`
	At   time.Time  `json:"timestamp"`
	Data NoticeData `json:"data"`
}

// NoticeData of a notice.
type NoticeData struct {
	ScanID        uuid.UUID            `json:"scan_id"`
	State         neuroscreen.State    `json:"state,omitempty"`
	Run           int                  `json:"run,omitempty"`
	ResultVersion int                  `json:"result_version,omitempty"`
	Reasons       []neuroscreen.Reason `json:"reasons,omitempty"`
}

// Notifier puts the job that delivers a notice to one webhook into the
// transaction that makes it true. id names the message through all attempts.
type Notifier interface {
	Notify(ctx context.Context, tx pgx.Tx, siteID, webhookID, id uuid.UUID, n Notice) error
}

// Webhook is an address that is told of a site's scans.
type Webhook struct {
	ID         uuid.UUID
	URL        string
	Events     []string
	Created    time.Time
	Disabled   *time.Time // the receiver wanted no more
	LastAt     *time.Time // of the last attempt, and what came of it
	LastStatus *int
	LastError  *string
}

const webhookColumns = `id, url, events, created_at AS created, disabled_at AS disabled, last_at, last_status, last_error`

// maxWebhooks of a site: each is a job for every scan.
const maxWebhooks = 20

// CreateWebhook stores a webhook with the secret that its messages are signed
// with. Errors: CodeConflict "too-many-webhooks".
func (s *Store) CreateWebhook(ctx context.Context, siteID uuid.UUID, by Actor, url, secret string, events []string) (w Webhook, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Webhook{}, err
	}
	events = slices.Clone(events)
	slices.Sort(events)
	events = slices.Compact(events)
	err = s.inTx(ctx, func(t *tx) error {
		var n int
		if _, err := t.Exec(ctx, "SELECT FROM sites WHERE id = $1 FOR NO KEY UPDATE", siteID); err != nil {
			return err
		}
		if err := t.QueryRow(ctx, "SELECT count(*) FROM webhooks WHERE site_id = $1", siteID).Scan(&n); err != nil {
			return err
		}
		if n >= maxWebhooks {
			return neuroscreen.Errorf(neuroscreen.CodeConflict, "too-many-webhooks", "a site has at most %d webhooks; delete one first", maxWebhooks)
		}
		var err error
		w, err = row[Webhook](ctx, t, nil, `
			INSERT INTO webhooks (site_id, id, url, events, sealed, created_at)
			VALUES (@site, @id, @url, @events, @sealed, @now)
			RETURNING `+webhookColumns,
			pgx.NamedArgs{"site": siteID, "id": id, "url": url, "events": events, "now": t.now,
				"sealed": s.cfg.Keys.Seal(siteID, webhookContext(id), []byte(secret))})
		if err != nil {
			return err
		}
		return t.audit(ctx, siteID, by, "webhook.create", "webhook:"+id.String(), "")
	})
	return w, err
}

func webhookContext(id uuid.UUID) string { return "webhook/" + id.String() }

// Webhooks lists those of the site, oldest first.
func (s *Store) Webhooks(ctx context.Context, siteID uuid.UUID) ([]Webhook, error) {
	return rows[Webhook](ctx, s, "SELECT "+webhookColumns+" FROM webhooks WHERE site_id = @site ORDER BY created_at, id", pgx.NamedArgs{"site": siteID})
}

// DeleteWebhook ends a webhook; messages under way to it are dropped. Errors:
// CodeNotFound.
func (s *Store) DeleteWebhook(ctx context.Context, siteID uuid.UUID, by Actor, id uuid.UUID) error {
	return s.inTx(ctx, func(t *tx) error {
		tag, err := t.Exec(ctx, "DELETE FROM webhooks WHERE site_id = @site AND id = @id", pgx.NamedArgs{"site": siteID, "id": id})
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return notFound("webhook")
		}
		return t.audit(ctx, siteID, by, "webhook.delete", "webhook:"+id.String(), "")
	})
}

// WebhookSecret returns a webhook with its secret, for the delivery. Errors:
// CodeNotFound, for a disabled one too.
func (s *Store) WebhookSecret(ctx context.Context, siteID, id uuid.UUID) (w Webhook, secret string, err error) {
	type sealed struct {
		Webhook
		Sealed []byte
	}
	found, err := row[sealed](ctx, s.cfg.Pool, notFound("webhook"),
		"SELECT "+webhookColumns+", sealed FROM webhooks WHERE site_id = @site AND id = @id AND disabled_at IS NULL",
		pgx.NamedArgs{"site": siteID, "id": id})
	if err != nil {
		return Webhook{}, "", err
	}
	plain, err := s.cfg.Keys.Open(siteID, webhookContext(id), found.Sealed)
	if err != nil {
		return Webhook{}, "", fmt.Errorf("store: secret of webhook %s: %w", id, err)
	}
	return found.Webhook, string(plain), nil
}

// NoteDelivery records what came of an attempt: status 0 when there was no
// answer, failure "" when it was delivered. gone disables the webhook.
func (s *Store) NoteDelivery(ctx context.Context, siteID, id uuid.UUID, status int, failure string, gone bool) error {
	return s.inTx(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `
			UPDATE webhooks
			SET last_at = @now, last_status = nullif(@status, 0), last_error = nullif(@failure, ''),
			    disabled_at = CASE WHEN @gone THEN @now ELSE disabled_at END
			WHERE site_id = @site AND id = @id`,
			pgx.NamedArgs{"site": siteID, "id": id, "now": t.now, "status": status, "failure": failure, "gone": gone})
		return err
	})
}

// noticeOf the states that end a run.
var noticeOf = map[neuroscreen.State]string{
	neuroscreen.Scored: NoticeScored, neuroscreen.Refused: NoticeRefused,
	neuroscreen.Failed: NoticeFailed, neuroscreen.Cancelled: NoticeCancelled,
}

// notifyEnd tells the site's webhooks of a run's end, if this is one.
func (t *tx) notifyEnd(ctx context.Context, c ScanRecord) error {
	kind, ok := noticeOf[c.State]
	if !ok {
		return nil
	}
	data := NoticeData{ScanID: c.ID, State: c.State, Run: c.Run, Reasons: c.Reasons}
	if c.State == neuroscreen.Scored {
		data.ResultVersion = c.ResultVersion
	}
	return t.notify(ctx, c.SiteID, Notice{Type: kind, At: t.now, Data: data})
}

// notifyWithdrawn tells them that the scan's result counts no longer; a scan
// without a result has nothing to withdraw.
func (t *tx) notifyWithdrawn(ctx context.Context, c ScanRecord, why neuroscreen.Reason) error {
	if c.ResultVersion == 0 {
		return nil
	}
	return t.notify(ctx, c.SiteID, Notice{Type: NoticeWithdrawn, At: t.now,
		Data: NoticeData{ScanID: c.ID, ResultVersion: c.ResultVersion, Reasons: []neuroscreen.Reason{why}}})
}

func (t *tx) notify(ctx context.Context, siteID uuid.UUID, n Notice) error {
	if t.s.cfg.Notices == nil {
		return nil
	}
	r, err := t.Query(ctx, "SELECT id FROM webhooks WHERE site_id = @site AND disabled_at IS NULL AND @event = ANY (events)",
		pgx.NamedArgs{"site": siteID, "event": n.Type})
	if err != nil {
		return err
	}
	hooks, err := pgx.CollectRows(r, pgx.RowTo[uuid.UUID])
	if err != nil {
		return err
	}
	for _, hook := range hooks {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		if err := t.s.cfg.Notices.Notify(ctx, t, siteID, hook, id, n); err != nil {
			return err
		}
	}
	return nil
}
