/** Doing things: one way to ask, to report, and to bring the page up to date. */
import { Text } from "@mantine/core";
import { modals } from "@mantine/modals";
import { notifications } from "@mantine/notifications";
import { useMutation, useQueryClient, type UseMutationOptions } from "@tanstack/react-query";
import { useRef } from "react";
import { useTranslation } from "react-i18next";

import { messageOf } from "../api/client";
import { jsonOf } from "../json";

/** A mutation for which the same change, asked for again while it is under way, is the same: a double click acts once. */
function useOnce<A, T>(options: UseMutationOptions<T, Error, A>) {
  const mutation = useMutation(options);
  const underWay = useRef(new Map<string | undefined, Promise<T>>());
  const mutateAsync = (argument: A) => {
    const key = jsonOf([argument]);
    const begun = underWay.current.get(key) ?? mutation.mutateAsync(argument).finally(() => underWay.current.delete(key));
    underWay.current.set(key, begun);
    return begun;
  };
  // Whoever does not wait for it has been told by `onError`.
  const mutate = (argument: A) => void mutateAsync(argument).catch(() => undefined);
  return { ...mutation, mutate, mutateAsync };
}

interface Options<T> {
  done?: (result: T) => string | undefined;
  then?: (result: T) => void;
}

/** A change: afterwards everything that is shown is read again; a refusal is told. */
export function useAct<A, T>(ask: (argument: A) => Promise<T>, { done, then }: Options<T> = {}) {
  const { t } = useTranslation();
  const client = useQueryClient();
  return useOnce({
    mutationFn: ask,
    onSuccess: (result) => {
      const message = done?.(result);
      if (message !== undefined) notifications.show({ message, color: "teal" });
      then?.(result);
    },
    onError: (error) => notifications.show({ title: t("common.error"), message: messageOf(error), color: "red" }),
    onSettled: (_result, error) => {
      const shown = client.invalidateQueries();
      // A success is under way until it is seen. Who is refused may ask again at once.
      return error === null ? shown : undefined;
    },
  });
}

const AT_ONCE = 6;

/** The same change of many things; tells how many were refused, and why the first one was; `then` comes afterwards. */
export function useActOnMany<A>(ask: (argument: A) => Promise<unknown>, then?: () => void) {
  const { t } = useTranslation();
  const client = useQueryClient();
  return useOnce({
    mutationFn: async (all: A[]) => {
      const left = [...all];
      const refused: unknown[] = [];
      const work = async () => {
        for (let one = left.shift(); one !== undefined; one = left.shift()) {
          await ask(one).catch((error: unknown) => refused.push(error));
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      return { count: all.length, refused };
    },
    onSuccess: ({ count, refused }) => {
      notifications.show(
        refused.length === 0
          ? { message: t("common.done", { count }), color: "teal" }
          : { message: t("common.someFailed", { count, failed: refused.length, message: messageOf(refused[0]) }), color: "red" },
      );
      then?.();
    },
    onSettled: () => client.invalidateQueries(),
  });
}

export function useConfirm() {
  const { t } = useTranslation();
  return (title: string, text: string | null, label: string, onConfirm: () => void) =>
    modals.openConfirmModal({
      title,
      children: text === null ? null : <Text size="sm">{text}</Text>,
      labels: { confirm: label, cancel: t("common.close") },
      confirmProps: { color: "red.9" }, // Mantine's red is too pale behind white in the dark (WCAG AA)
      onConfirm,
    });
}
