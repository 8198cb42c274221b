package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/riverqueue/river"

	"neuroscreen"
	"neuroscreen/internal/webhook"
)

// noticeWorker delivers one notice to one webhook.
type noticeWorker struct {
	river.WorkerDefaults[noticeArgs]
	r *Runner
}

func (w *noticeWorker) Work(ctx context.Context, job *river.Job[noticeArgs]) error {
	a, st := job.Args, w.r.cfg.Store
	hook, secret, err := st.WebhookSecret(ctx, a.SiteID, a.WebhookID)
	if e := neuroscreen.AsError(err); e != nil && e.Code == neuroscreen.CodeNotFound {
		return nil // deleted or disabled since
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(a.Notice)
	if err != nil {
		return err
	}
	status, sendErr := w.r.cfg.Webhooks.Send(ctx, hook.URL, secret, "msg_"+a.ID.String(), body)
	failure := ""
	if sendErr != nil {
		failure = fmt.Sprintf("attempt %d: %v", job.Attempt, sendErr)
		w.r.cfg.Logger.WarnContext(ctx, "notice not delivered", "webhook", a.WebhookID, "type", a.Notice.Type, "attempt", job.Attempt, "error", sendErr)
	}
	gone := errors.Is(sendErr, webhook.ErrGone)
	if err := st.NoteDelivery(ctx, a.SiteID, a.WebhookID, status, failure, gone); err != nil {
		w.r.cfg.Logger.WarnContext(ctx, "outcome of a delivery not recorded", "webhook", a.WebhookID, "error", err)
	}
	if gone {
		return nil
	}
	return sendErr
}
