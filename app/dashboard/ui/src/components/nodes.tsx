import { Group, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import type { Schemas } from "../api/client";
import { nodesQuery, statusQuery } from "../api/queries";
import { Failure, Loading } from "./feedback";
import { Dot } from "./state";
import { Ago, useNow } from "./time";

const SILENT_AFTER = 30_000;

export function NodeTable() {
  const { t } = useTranslation();
  const [since] = useState(() => new Date(Date.now() - 3_600_000).toISOString());
  const found = useQuery(nodesQuery(since));
  if (found.data === undefined) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  const nodes = [...found.data].sort((a, b) => Number(a.stopped_at !== null) - Number(b.stopped_at !== null));
  return (
    <Table.ScrollContainer minWidth={640} scrollAreaProps={{ type: "auto" }}>
      <Table className="rows">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{t("system.node")}</Table.Th>
            <Table.Th>{t("common.state")}</Table.Th>
            <Table.Th>{t("system.pid")}</Table.Th>
            <Table.Th>{t("system.role")}</Table.Th>
            <Table.Th>{t("system.engine")}</Table.Th>
            <Table.Th>{t("system.running")}</Table.Th>
            <Table.Th>{t("system.heartbeat")}</Table.Th>
            <Table.Th>{t("system.started")}</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {nodes.map((node) => (
            <Table.Tr key={node.id}>
              <Table.Td className="mono">{node.id}</Table.Td>
              <Table.Td><NodeState node={node} /></Table.Td>
              <Table.Td className="number">{node.pid}</Table.Td>
              <Table.Td>{node.role}</Table.Td>
              <Table.Td>{node.engine}</Table.Td>
              <Table.Td className="number">{node.running}</Table.Td>
              <Table.Td><Ago at={node.heartbeat_at} /></Table.Td>
              <Table.Td><Ago at={node.started_at} /></Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function NodeState({ node }: { node: Schemas["NodeAnswer"] }) {
  const { t } = useTranslation();
  const status = useQuery(statusQuery);
  // By the server's clock: that of the browser may be wrong.
  const ahead = status.data === undefined ? 0 : status.dataUpdatedAt - Date.parse(status.data.now);
  const now = useNow() - ahead;
  const [color, text] = node.found_dead
    ? (["#e0413f", "dead"] as const)
    : node.stopped_at !== null
      ? (["#8a7f72", "stopped"] as const)
      : now - Date.parse(node.heartbeat_at) > SILENT_AFTER
        ? (["#d98a00", "silent"] as const)
        : (["#22a06b", "alive"] as const);
  return <Group gap={6} wrap="nowrap"><Dot color={color} /><Text size="sm">{t(`system.${text}`)}</Text></Group>;
}
