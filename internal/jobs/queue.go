package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"neuroscreen/internal/store"
)

// scanArgs are ids only: the row says the rest, and says it as it is when the
// job runs.
type scanArgs struct {
	SiteID uuid.UUID `json:"site_id"`
	ScanID uuid.UUID `json:"scan_id"`
}

const scanKind = "analyse-scan"

func (scanArgs) Kind() string { return scanKind }

// Enqueuer puts jobs into the store's transactions. It implements
// store.Enqueuer.
type Enqueuer struct {
	client *river.Client[pgx.Tx]
}

// NewEnqueuer works with any pool of the same database.
func NewEnqueuer(pool *pgxpool.Pool) (*Enqueuer, error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return &Enqueuer{client: client}, nil
}

// Enqueue adds the job of a scan to the transaction.
func (e *Enqueuer) Enqueue(ctx context.Context, tx pgx.Tx, siteID, scanID uuid.UUID) error {
	_, err := e.client.InsertTx(ctx, tx, scanArgs{SiteID: siteID, ScanID: scanID}, nil)
	return err
}

// decodingArgs are ids only, as scanArgs.
type decodingArgs struct {
	SiteID     uuid.UUID `json:"site_id"`
	DecodingID uuid.UUID `json:"decoding_id"`
}

const decodingKind = "decode-runs"

func (decodingArgs) Kind() string { return decodingKind }

// Decodings have a queue of their own: one takes minutes, and no patient's scan
// is to stand in line behind it.
const decodingQueue = "decodings"

// EnqueueDecoding adds the job of a decoding to the transaction.
func (e *Enqueuer) EnqueueDecoding(ctx context.Context, tx pgx.Tx, siteID, decodingID uuid.UUID) error {
	_, err := e.client.InsertTx(ctx, tx, decodingArgs{SiteID: siteID, DecodingID: decodingID}, &river.InsertOpts{Queue: decodingQueue})
	return err
}

// noticeArgs hold the message itself: it says what was true when it was made,
// and the scan may be gone by now.
type noticeArgs struct {
	SiteID    uuid.UUID    `json:"site_id"`
	WebhookID uuid.UUID    `json:"webhook_id"`
	ID        uuid.UUID    `json:"id"`
	Notice    store.Notice `json:"notice"`
}

const noticeKind = "deliver-notice"

func (noticeArgs) Kind() string { return noticeKind }

// Notices have a queue of their own: they must not wait for analyses.
const noticeQueue = "notices"

// noticeAttempts: river waits the fourth power of the attempt in seconds, so
// a receiver may be away for a day.
const noticeAttempts = 14

// Notify adds the delivery of a notice to the transaction. It implements
// store.Notifier.
func (e *Enqueuer) Notify(ctx context.Context, tx pgx.Tx, siteID, webhookID, id uuid.UUID, n store.Notice) error {
	_, err := e.client.InsertTx(ctx, tx, noticeArgs{SiteID: siteID, WebhookID: webhookID, ID: id, Notice: n},
		&river.InsertOpts{Queue: noticeQueue, MaxAttempts: noticeAttempts})
	return err
}

// reconcile gives a job to each unfinished scan or decoding that has none: its
// worker is gone (the lease ran out), or its job is (a worker died between
// taking the job and the lease, or somebody emptied the queue). It returns how
// many.
//
// A job that river calls running does not count, because a killed worker's
// job stays so. One job too many does no harm: the lease lets one work.
//
// Without leases it leaves out those whose lease ran out: where the database was
// away until now, their workers may live and just not have renewed yet.
func reconcile(ctx context.Context, pool *pgxpool.Pool, queue *Enqueuer, idle time.Duration, leases bool) (int, error) {
	scans, err := requeue(ctx, pool, idle, leases, "scans", scanKind, "scan_id", queue.Enqueue)
	if err != nil {
		return scans, err
	}
	decodings, err := requeue(ctx, pool, idle, leases, "decodings", decodingKind, "decoding_id", queue.EnqueueDecoding)
	return scans + decodings, err
}

func requeue(ctx context.Context, pool *pgxpool.Pool, idle time.Duration, leases bool, table, kind, argument string,
	enqueue func(context.Context, pgx.Tx, uuid.UUID, uuid.UUID) error) (int, error) {
	n := 0
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		r, err := tx.Query(ctx, `
			SELECT s.site_id, s.id
			FROM `+table+` s
			WHERE s.finished_at IS NULL
			  AND CASE WHEN s.lease_until IS NULL
			      THEN s.updated_at < clock_timestamp() - @idle::interval
			      ELSE @leases AND s.lease_until < clock_timestamp() END
			  AND NOT EXISTS (
			      SELECT FROM river_job j
			      WHERE j.kind = @kind
			        AND j.args @> jsonb_build_object(@argument::text, s.id)
			        AND j.state IN ('available', 'pending', 'retryable', 'scheduled'))
			ORDER BY s.updated_at
			LIMIT 1000
			-- Several workers look at the same time.
			FOR UPDATE OF s SKIP LOCKED`,
			pgx.NamedArgs{"idle": idle, "leases": leases, "kind": kind, "argument": argument})
		if err != nil {
			return err
		}
		lost, err := pgx.CollectRows(r, pgx.RowToStructByPos[struct{ SiteID, ID uuid.UUID }])
		if err != nil {
			return err
		}
		for _, a := range lost {
			if err := enqueue(ctx, tx, a.SiteID, a.ID); err != nil {
				return err
			}
		}
		n = len(lost)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("jobs: reconcile: %w", err)
	}
	return n, nil
}
