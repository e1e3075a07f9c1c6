import { Button, Checkbox, Stack, Table, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { Execution } from "../api/client";
import { executionsQuery, type ExecutionFilters } from "../api/queries";
import { duration } from "../format";
import { Empty, Failure, Loading } from "./feedback";
import { StateMark, triggerText } from "./state";
import { Ago, useNow } from "./time";

interface Props {
  filters: ExecutionFilters;
  empty: string;
  /** Show so many and no more; without it, page by page. */
  limit?: number;
  withoutTask?: boolean;
  picked?: ReadonlySet<number>;
  onPick?: (picked: ReadonlySet<number>) => void;
}

/** Executions, newest first, kept up to date. */
export function ExecutionTable({ filters, empty, limit, withoutTask, picked, onPick }: Props) {
  const { t } = useTranslation();
  const found = useInfiniteQuery(executionsQuery(filters, limit));
  if (found.data === undefined) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  const rows = found.data.pages.flatMap((page) => page.items).slice(0, limit);
  const all = picked !== undefined && rows.length > 0 && rows.every((row) => picked.has(row.id));
  const toggle = (id: number) => {
    const after = new Set(picked);
    if (!after.delete(id)) after.add(id);
    onPick?.(after);
  };
  return (
    <Stack gap={0}>
      {rows.length === 0 ? (
        <Empty>{empty}</Empty>
      ) : (
        <Table.ScrollContainer minWidth={withoutTask ? 560 : 760} scrollAreaProps={{ type: "auto" }}>
          <Table className="rows" verticalSpacing="xs">
            <Table.Thead>
              <Table.Tr>
                {onPick ? (
                  <Table.Th w={40}>
                    <Checkbox aria-label={t("common.selectAll")} checked={all} onChange={() => onPick(all ? new Set() : new Set(rows.map((row) => row.id)))} />
                  </Table.Th>
                ) : null}
                <Table.Th w={90}>#</Table.Th>
                {withoutTask ? null : <Table.Th>{t("executions.task")}</Table.Th>}
                <Table.Th>{t("common.state")}</Table.Th>
                <Table.Th>{t("executions.trigger")}</Table.Th>
                <Table.Th>{t("executions.started")}</Table.Th>
                <Table.Th>{t("executions.duration")}</Table.Th>
                <Table.Th>{t("executions.message")}</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {rows.map((row) => (
                <Table.Tr key={row.id} data-execution={row.id}>
                  {onPick ? (
                    <Table.Td><Checkbox aria-label={t("common.select", { name: `#${row.id}` })} checked={picked?.has(row.id) ?? false} onChange={() => toggle(row.id)} /></Table.Td>
                  ) : null}
                  <Table.Td><Link className="link number" to="/executions/$id" params={{ id: row.id }}>{row.id}</Link></Table.Td>
                  {withoutTask ? null : (
                    <Table.Td maw={200}>
                      <Text size="sm" className="clip">
                        {row.task_id === null ? row.task_type : <Link className="link" to="/tasks/$id" params={{ id: row.task_id }}>{row.task_name ?? row.task_type}</Link>}
                      </Text>
                    </Table.Td>
                  )}
                  <Table.Td><StateMark state={row.state} reason={row.reason} /></Table.Td>
                  <Table.Td><Text size="sm" style={{ whiteSpace: "nowrap" }}>{triggerText(t, row.trigger)}</Text></Table.Td>
                  <Table.Td><Ago at={row.created_at} /></Table.Td>
                  <Table.Td className="number" style={{ whiteSpace: "nowrap" }}><Took execution={row} /></Table.Td>
                  <Table.Td maw={260}><Text size="sm" c={row.error ? "var(--mantine-color-error)" : "dimmed"} className="clip">{row.error ?? row.progress_message ?? row.message ?? ""}</Text></Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {found.hasNextPage && limit === undefined ? (
        <Button variant="subtle" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>
          {rows.length === 0 ? t("executions.searchOn") : t("common.more")}
        </Button>
      ) : null}
    </Stack>
  );
}

export function Took({ execution }: { execution: Execution }) {
  const now = useNow();
  if (execution.state === "running" && execution.started_at !== null) {
    return <>{duration(Math.max(0, Math.round((now - Date.parse(execution.started_at)) / 1000)))}</>;
  }
  return <>{duration(execution.duration_seconds)}</>;
}
