output "environment" {
  description = "Variables of daemon, service and runs"
  value = {
    BACKFILL_ENV      = "production"
    BACKFILL_PROJECT  = var.project
    BACKFILL_BUCKET   = google_storage_bucket.lake.name
    BACKFILL_DATASET  = google_bigquery_dataset.tables.dataset_id
    BACKFILL_LOCATION = var.location
  }
}

output "service_account" {
  description = "The account that the pipeline runs as"
  value       = google_service_account.pipeline.email
}
